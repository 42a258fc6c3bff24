"""Saving: a folder or a file is replaced as a whole or not at all, and nothing but a plain file is ever replaced."""

import os
import re
import stat

import pytest
from fastcore.script import CliError

from sdlearn.tools import draw, saving


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "part"
    with saving.whole_folder(folder) as new:
        (new / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), saving.whole_folder(folder) as new:
        (new / "a").write_text("half")
        raise KeyboardInterrupt
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def write(file, text="new"):
    with saving.whole_file(file) as new:
        new.write_text(text)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    file = tmp_path / "file"
    write(file, "old")
    with pytest.raises(KeyboardInterrupt), saving.whole_file(file) as new:
        new.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(target)
    for text in ("not there yet", "there"):
        write(link, text)
        assert link.is_symlink() and target.read_text() == text


def test_a_planted_link_is_not_followed(tmp_path):
    """Whoever may write to the folder can plant links, but cannot guess the name of the temporary file."""
    names = []
    for _ in range(2):
        with saving.whole_file(tmp_path / "file") as new:
            names.append(new.name)
            assert stat.S_IMODE(new.stat().st_mode) == 0o600
            new.write_text("new")
    assert names[0] != names[1] and all(re.fullmatch(r"\.\w{8,}\.part", name) for name in names)


def test_a_file_keeps_its_mode_and_a_new_one_gets_the_usual(tmp_path):
    file = tmp_path / "file"
    os.umask(umask := os.umask(0))
    write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    file.chmod(0o640)
    write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def fifo(path):
    os.mkfifo(path)


def device(path):
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null, but our own
    except PermissionError:
        pytest.skip("only root can make a device")


def protected(path):
    path.touch()
    path.chmod(0o444)


@pytest.mark.skipif(os.name != "posix", reason="pipes, devices and file modes are Unix's")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (fifo, "is a device or a pipe, not a file"),
        (device, "is a device or a pipe, not a file"),
        (protected, "is write-protected; give another name"),
        (os.mkdir, "is a folder; add the name of a file"),
    ],
)
@pytest.mark.parametrize("way", ["itself", "a link to it"])
def test_what_is_no_plain_file_is_refused_and_left_alone(tmp_path, make, said, way):
    there, out = tmp_path / "there", tmp_path / "out.png"
    make(there)
    before = there.lstat()
    if way == "itself":
        out = there
    else:
        out.symlink_to(there)
    with pytest.raises(CliError, match=f"cannot write {re.escape(str(out))}: it {said}"):
        draw.main("a cat", steps=1, out=out)
    with pytest.raises(OSError, match=said):
        write(out)
    assert there.lstat().st_ino == before.st_ino and there.lstat().st_mode == before.st_mode


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        write(tmp_path / "nowhere" / "file")
