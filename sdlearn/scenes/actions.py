"""What happens in a scene: who is where."""

from sdlearn.scenes.mounts import MOUNTS, coat
from sdlearn.scenes.pen import SIDE, Pen, shade
from sdlearn.scenes.subjects import lift, sit, stand


def shadow(pen, x, y, width):
    """A darker patch of ground, so that things stand on it."""
    _, lowest = pen.at(x, y - 1.6)
    ground = pen.canvas.getpixel((pen.canvas.width // 2, lowest - 1))
    pen.oval(x, y, width, 1.6, shade(ground, 0.8))


def riding(pen, rng, scene):
    x, y, scale, tilt = rng.uniform(27, 37), rng.uniform(6.5, 11), rng.uniform(0.86, 1.06), rng.uniform(-0.09, 0.12)
    draw_mount, seat = MOUNTS[scene["mount"]]
    shadow(pen, x, y, 17 * scale)
    pair = Pen(pen.canvas, x, y, scale, tilt)
    draw_mount(pair, coat(scene["colour"], rng))
    sit(pair.moved(*seat), scene["subject"])


def standing(pen, rng, scene):
    scale, swap = rng.uniform(0.84, 1.0), rng.random() < 0.5
    x, mount_x, y = rng.uniform(12, 15), rng.uniform(41, 44), rng.uniform(6, 12)
    if swap:
        x, mount_x = SIDE - x, SIDE - mount_x
    draw_mount, _ = MOUNTS[scene["mount"]]
    shadow(pen, x, y, 8 * scale)
    shadow(pen, mount_x, y, 14 * scale)
    draw_mount(Pen(pen.canvas, mount_x, y, scale * 0.9), coat(scene["colour"], rng))
    stand(Pen(pen.canvas, x, y - 1, scale * 1.06), scene["subject"])


def carrying(pen, rng, scene):
    x, y, scale, tilt = rng.uniform(27, 37), rng.uniform(3.5, 7), rng.uniform(0.86, 0.98), rng.uniform(-0.12, 0.12)
    draw_mount, _ = MOUNTS[scene["mount"]]
    shadow(pen, x, y, 9 * scale)
    lift(Pen(pen.canvas, x, y, scale), scene["subject"])
    draw_mount(Pen(pen.canvas, x, y + 27 * scale, scale * 0.86, tilt), coat(scene["colour"], rng))


ACTIONS = {"riding": riding, "standing next to": standing, "carrying": carrying}
