"""Copies of the shipped model that are not what they should be, or saved in another form."""

import json

from safetensors.torch import load_file, save

from sdlearn import parts
from sdlearn.parts import schema


def damage(file, content: bytes):
    """Put other content in a file's place; it may be a link to the shipped one."""
    file.unlink()
    file.write_bytes(content)


def change(file, **settings):
    """Change or add settings in a file of them."""
    damage(file, json.dumps(json.loads(file.read_text()) | settings).encode())


def change_weights(file, how):
    """Change tensors, name -> tensor, in place."""
    how(tensors := load_file(file))
    damage(file, save(tensors, {"format": "pt"}))


def resave(root, part, **form):
    """Save a part again as its library does, in another form: `variant`, or shards of a `max_shard_size`."""
    model = parts.load_part(schema.KINDS[part], root, part)
    for file in (root / part).iterdir():
        file.unlink()
    model.save_pretrained(root / part, **form)
