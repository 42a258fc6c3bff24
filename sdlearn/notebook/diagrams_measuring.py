"""The diagram of lesson 8."""

from sdlearn.notebook.diagrams import PICTURES, shape
from sdlearn.notebook.drawing import Diagram, Drawing, noise


def measuring() -> Diagram:
    """Two ways from pictures to numbers: does a picture show all that its prompt names, how far apart are two sets."""
    about = "A judge, or your eye, compares drawn pictures with their prompts: does the picture show everything that "
    about += "the prompt names? CLIP turns drawn and real pictures into points: how far apart are the two sets?"
    d = Drawing("From pictures to numbers", about, 376)
    d.text(90, 44, "prompts")
    d.box(90, 128, 120, 64, "unet", "model")
    for y, name in ((128, "drawn"), (278, "real")):
        for i in (2, 1, 0):
            d.picture(244 + 6 * i, y - 6 * i, 64)
        d.caption(250, y + 48, f"{name} pictures", shape(*PICTURES))
    d.box(470, 128, 116, 64, "pictures", "judge", "or your eye")
    d.box(470, 278, 116, 64, "image_encoder", "CLIP", "image encoder")
    d.arrows([(90, 58), (90, 95)], [(151, 128), (208, 128)], [(130, 44), (470, 44), (470, 95)])
    d.arrows([(294, 118), (411, 118)], [(294, 138), (352, 138), (352, 268), (411, 268)], [(294, 288), (411, 288)])
    d.arrows([(529, 128), (584, 128)], [(529, 268), (566, 268)], [(529, 288), (566, 288)], [(648, 278), (682, 278)])
    for y, seed in ((268, 1), (288, 2)):
        d.numbers(606, y, noise(1, 8, seed), (8, 14), "image_encoder")
    d.code(606, 312, shape(64))
    d.text(672, 128, "yes or no for each:\na rate, an interval")
    d.text(732, 278, "FID, KID,\nprecision,\nrecall")
    return d.done()
