"""What the cells of the lessons call.

show                pictures and plots
widgets             controls over them, and films
diagrams            the drawn diagrams: the five parts, CLIP, VAE, noising, one step of the loop
diagrams_unet       the U-Net and its attention block, drawn from a model's configuration
diagrams_measuring  lesson 8's: from pictures to numbers
drawing             the shapes and arrows of all of them: one colour for each part
playground          lesson 5's widget: type a prompt, turn the knobs
checks              one check for each exercise, in files named like the lessons
"""
