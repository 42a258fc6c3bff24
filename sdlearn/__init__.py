"""The modules of the course, one for each lesson, and what joins them.

scenes    lesson 0  the captioned pictures, drawn by code
clip      lesson 1  tokenizer, two encoders, contrastive loss
vae       lesson 2  autoencoder, its loss, pictures to latents and back
noising   lesson 3  the schedule and the forward process
unet      lesson 4  noise predictor, its loss, a look at its attention
sampling  lesson 5  guidance and the loop

hub       where a model lies: with the course, in a directory, or on the hub
parts     the five parts of a Stable Diffusion, ours or the hub's: checked, opened, put on a device
saving    parts to disk, as a whole or not at all
fit       one training loop for all of them
train     what each part is trained on; `sdlearn-train`
judging   a classifier that reads what is in a picture
measure   does the picture show what the prompt said; `sdlearn-measure`
survey    variety, novelty, likeness; over guidance and steps; `sdlearn-survey`
draw      `sdlearn-draw`
show      pictures and plots
touch     controls over them, and films
studio    lesson 5's widget: type a prompt, turn the knobs
checks    one check for each exercise
"""
