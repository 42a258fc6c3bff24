"""Build a small Stable Diffusion, and take it apart: the code of the course.

scenes      lesson 0  the captioned pictures, drawn by code
clip        lesson 1  tokenizer, two encoders, contrastive loss
training    lesson 1  the loop that trains all of them
vae         lesson 2  autoencoder, its loss, pictures to latents and back
noising     lesson 3  the noise schedule and the forward process
unet        lesson 4  noise predictor, its loss, a look at its attention
sampling    lesson 5  guidance and the loop, from a prompt to a picture
judging     lesson 5  the judge: does the picture show what the prompt said
editing     lesson 6  editing pictures with frozen weights
new_words   lesson 7  a new word by one vector, by LoRA or by all weights
measuring   lesson 8  how good the pictures are, and how certain we can be
since_2022  lesson 9  straight paths, few steps, transformer blocks

shapes      checks of arguments
parts       loads a model; every lesson calls it
recipes     what each part is trained on, and with which settings

notebook    what cells call: pictures, controls, the playground, a check for each exercise
tools       what you need not open: the hub, saving, resumable runs, the commands
mini        the trained model
"""
