"""The rooms of the course, one for each lesson, and what joins them.

scenes    lesson 0  the captioned pictures, drawn by code
clip      lesson 1  tokenizer, two encoders, contrastive loss
vae       lesson 2  autoencoder, its loss, pictures to latents and back
noising   lesson 3  the schedule and the forward process
unet      lesson 4  noise predictor, its loss, a look at its attention
sampling  lesson 5  guidance and the loop

parts     the five parts of a Stable Diffusion, ours or the hub's: load, save, device
fit       one training loop for all of them
train     what each part is trained on; `sdlearn-train`
measure   does the picture show what the prompt said; `sdlearn-measure`
draw      `sdlearn-draw`
show      pictures, plots and widgets
checks    one check for each exercise
"""
