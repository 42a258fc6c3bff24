"""What the cells of the lessons call.

show        pictures and plots
widgets     controls over them, and films
playground  lesson 5's widget: type a prompt, turn the knobs
checks      one check for each exercise, in files named like the lessons
"""
