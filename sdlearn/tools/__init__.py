"""What you need not open.

hub      finds a model: in the course, in a directory, or on the hub
memory   does it fit into memory
saving   saves parts, completely or not at all
runs     training that can be resumed, in half precision, on a GPU, in several processes
guard    around every command: any error becomes one line
sources  what a model is trained on: the scenes, or a folder of your own
folder   a folder of captioned pictures, read into arrays
board    training progress in one picture
draw     `sdlearn-draw`: a picture from a prompt
train    `sdlearn-train`: a model of your own
fast     its part that makes a U-Net for one or two steps
export   `sdlearn-export`: the model as graphs that a browser runs
measure  `sdlearn-measure`: does the picture show what the prompt said
"""
