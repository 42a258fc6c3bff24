"""What a learner need not open.

hub      where a model lies: with the course, in a directory, or on the hub
memory   does it fit into memory
saving   parts to disk, as a whole or not at all
runs     training that can be resumed, in half precision, on a GPU, in several processes
guard    around every command: one line for whatever goes wrong
sources  what a model is trained on: the scenes, or a folder of your own
folder   a folder of captioned pictures, read into arrays
board    how far a training is, in one picture
draw     `sdlearn-draw`: a picture from a prompt
train    `sdlearn-train`: a model of one's own
fast     its part that makes a U-Net of one or two steps
export   `sdlearn-export`: the model as graphs that a browser runs
measure  `sdlearn-measure`: does the picture show what the prompt said
"""
