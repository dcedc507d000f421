"""`image_folder`: which files are read, as what numbers, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lrsweep.errors import WrongInSpec
from lrsweep.system.digests import of_folder
from lrsweep.tasks import TASKS, Task, describe, room

STORED = {"split": "stored", "val": 1, "test": 0, "scale": "none"}


def save(path: Path, seed: int = 0, shape: tuple[int, ...] = (4, 6, 3), mode: str | None = None) -> np.ndarray:
    """An image of noise, and its bytes as they were written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.RandomState(seed).randint(0, 256, size=shape, dtype=np.uint8)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)
    return values


def folder(path: Path, **arguments: Any) -> Task:
    return TASKS["image_folder"](path=str(path), **(STORED | arguments))


def refused(path: Path, **arguments: Any) -> list[tuple[str, str]]:
    with pytest.raises(WrongInSpec) as caught:
        folder(path, **arguments)
    return [(".".join(keys), wrong.replace(f"{path}", "data")) for keys, wrong in caught.value.found]


def test_classes_and_files_come_in_sorted_order_and_pixels_as_they_are(tmp_path: Path) -> None:
    names = ["dog/b.png", "dog/a.PNG", "cat/z/1.bmp", "cat/y.png", "Zebra/2.png", "Zebra/10.png", "cat/z.png"]
    images = {name: save(tmp_path / name, seed) for seed, name in enumerate(names)}
    task = folder(tmp_path)
    order = ["Zebra/10.png", "Zebra/2.png", "cat/y.png", "cat/z.png", "cat/z/1.bmp", "dog/a.PNG", "dog/b.png"]
    expected = np.stack([images[name].transpose(2, 0, 1) for name in order])
    assert torch.equal(torch.cat([task.train[0], task.val[0]]), torch.from_numpy(expected / 255).float())
    assert torch.cat([task.train[1], task.val[1]]).tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert task.notes["classes"] == ["Zebra", "cat", "dog"]
    assert (task.notes["in_shape"], task.notes["num_outputs"]) == ((3, 4, 6), 3)
    assert task.notes["warnings"] == []


def test_pixels_are_standardised_per_channel_by_the_train_split(tmp_path: Path) -> None:
    for seed in range(8):
        save(tmp_path / "ab"[seed % 2] / f"{seed}.png", seed)
    raw, task = folder(tmp_path, val=2, test=2), folder(tmp_path, val=2, test=2, scale="standard")
    train = raw.train[0].double()
    mean, sd = train.mean(dim=(0, 2, 3), keepdim=True), train.std(dim=(0, 2, 3), correction=0, keepdim=True)
    for name in ("train", "val", "test"):
        expected = ((getattr(raw, name)[0].double() - mean) / sd).float()
        assert torch.allclose(getattr(task, name)[0], expected, atol=1e-5)
    assert "inputs standardized per channel" in describe(task)


def test_a_channel_without_change_becomes_zero(tmp_path: Path) -> None:
    for seed in range(4):
        values = np.random.RandomState(seed).randint(0, 256, size=(4, 4, 3), dtype=np.uint8)
        values[..., 1] = 77
        (tmp_path / "ab"[seed % 2]).mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "ab"[seed % 2] / f"{seed}.png")
    task = folder(tmp_path, scale="standard")
    assert task.train[0][:, 1].abs().max() < 1e-6
    assert torch.isfinite(task.train[0]).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_are_converted(tmp_path: Path, mode: str) -> None:
    for name in ("a/1", "b/1", "b/2"):
        save(tmp_path / f"{name}.{'tif' if mode == 'CMYK' else 'png'}", mode=mode)
    assert folder(tmp_path).train[0].shape[1:] == (3, 4, 6)
    gray = folder(tmp_path, grayscale=True)
    assert gray.train[0].shape[1:] == (1, 4, 6)
    with Image.open(next((tmp_path / "a").iterdir())) as image:
        assert torch.equal(gray.train[0][0, 0], torch.from_numpy(np.asarray(image.convert("L")) / 255).float())


def test_size_cuts_to_the_shape_and_resizes(tmp_path: Path) -> None:
    """A wide image with a white middle third: a square cut of it is white."""
    values = np.zeros((10, 30, 3), dtype=np.uint8)
    values[:, 10:20] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "wide.png")
        save(tmp_path / name / "exact.png", 3, (5, 5, 3))
    task = folder(tmp_path, size=5)
    assert task.train[0].shape[1:] == (3, 5, 5)
    white, exact = task.train[0][1], task.train[0][0]
    assert white.min() > 0.85  # its edge is blended with the black beside it
    assert torch.equal(exact, torch.from_numpy(save(tmp_path / "c.png", 3, (5, 5, 3)).transpose(2, 0, 1) / 255).float())
    assert folder(tmp_path, size=[6, 3]).train[0].shape[1:] == (3, 6, 3)


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", shape=(8, 8, 3))
    save(tmp_path / "a" / "2.png", shape=(8, 8, 3))
    save(tmp_path / "b" / "1.png", shape=(9, 7, 3))
    assert refused(tmp_path) == [
        (
            "task.size",
            "images of 2 sizes, such as 8x8 (data/a/1.png) and 9x7 (data/b/1.png); write size: 8, or size: [height, "
            "width]",
        )
    ]


def test_all_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "c/1.png"):
        save(tmp_path / name)
    (tmp_path / "a" / "2.png").write_bytes(b"no image")
    torn = (tmp_path / "a" / "1.png").read_bytes()[:60]
    (tmp_path / "b" / "2.jpg").write_bytes(torn)
    Image.fromarray(np.zeros((4, 6), dtype=np.uint16)).save(tmp_path / "c" / "16.png")
    assert refused(tmp_path) == [
        ("task.path", "2 images cannot be read: data/a/2.png, data/b/2.jpg; repair or remove them"),
        ("task.path", "1 image has more than 8 bits in a pixel: data/c/16.png; convert it to 8 bits"),
    ]
    for number in range(3, 8):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"no image")
    assert refused(tmp_path)[0][1].endswith("data/a/6.png and 2 more; repair or remove them")


def test_folders_of_splits(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("validation", 2), ("test", 3)):
        for number in range(count):
            for label in ("b", "a"):
                save(tmp_path / split / label / f"{number}.png", number + len(split))
    (tmp_path / "test" / "a" / "0.png").rename(tmp_path / "test" / "b" / "9.png")
    task = folder(tmp_path, split="shuffled", val=0.5, test=0.5)
    assert [task.notes[name] for name in ("train", "val", "test")] == [8, 4, 6]
    assert task.val[1].tolist() == [0, 0, 1, 1]
    assert task.test[1].tolist() == [0, 0, 1, 1, 1, 1]
    expected = save(tmp_path / "again.png", 10).transpose(2, 0, 1)
    (tmp_path / "again.png").unlink()
    assert torch.equal(task.val[0][0], torch.from_numpy(expected / 255).float())
    assert "splits of the data: train, val, test" in task.notes["prepared"]


def test_val_is_a_share_of_train_where_it_has_no_folder(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("test", 2)):
        for number in range(count):
            for label in ("a", "b"):
                save(tmp_path / split / label / f"{number}.png", number)
    task = folder(tmp_path, split="shuffled", val=0.2, test=0.5)
    assert [task.notes[name] for name in ("train", "val", "test")] == [8, 2, 4]
    assert "splits of the data: train, test; val is a share of train" in task.notes["prepared"]
    (tmp_path / "test").rename(tmp_path / "val")
    assert folder(tmp_path, test=0.5).test is None


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("train", "car", "plane"):
        save(tmp_path / label / "1.png")
    assert folder(tmp_path).notes["classes"] == ["car", "plane", "train"]


def test_a_class_of_val_that_train_lacks_is_refused(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "val/a", "val/c", "val/d"):
        save(tmp_path / place / "1.png")
    (tmp_path / "train" / "empty").mkdir()
    found = refused(tmp_path)
    assert [wrong.partition(" (")[0] for _, wrong in found] == [
        "data/train/empty: holds no images",
        "data/val/c: there is no class 'c' in data/train",
        "data/val/d: there is no class 'd' in data/train",
    ]


def test_hidden_files_do_not_count_and_others_are_pointed_out(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", ".trash/1.png", "a/.cache/1.png", "a/.2.png"):
        save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("x")
    task = folder(tmp_path)
    assert task.notes["train"] + task.notes["val"] == 2
    (text,) = task.notes["warnings"]
    assert (
        text == f"2 files that are not images are not used: {tmp_path / 'b' / 'notes.txt'}, {tmp_path / 'labels.csv'}"
    )
    (tmp_path / "labels.csv").unlink()
    (text,) = folder(tmp_path).notes["warnings"]
    assert text == f"1 file that is not an image is not used: {tmp_path / 'b' / 'notes.txt'}"


def test_the_orientation_of_exif_is_not_applied(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name / "1.png", shape=(4, 6, 3))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        with Image.open(tmp_path / name / "1.png") as image:
            image.save(tmp_path / name / "1.png", exif=exif)
    assert folder(tmp_path).notes["in_shape"] == (3, 4, 6)


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png", 1)
    save(tmp_path / "data" / "a" / "1.png", 2)
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "round").symlink_to(tmp_path / "data" / "a")
    task = folder(tmp_path / "data")
    assert (task.notes["train"], task.notes["val"]) == (1, 1)


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ([], "data: holds no folders; one for each class is needed"),
        (["1.png"], "data: holds no folders; one for each class is needed"),
        (["a/1.png", "a/2.png"], "data: a folder for each class is needed; there is only a"),
        (["train/1.png", "test/1.png"], "data/train: a folder for each class is needed; there is none"),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], "data: both val/ and valid/ are the val split; remove one"),
    ],
)
def test_a_folder_that_is_laid_out_otherwise_is_refused(tmp_path: Path, names: list[str], wrong: str) -> None:
    for name in names:
        save(tmp_path / name)
    assert ("task.path", wrong) in refused(tmp_path)


def test_images_that_cannot_fit_are_refused_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.png", "b/1.png"):
        save(tmp_path / name, shape=(100, 100, 3))
    folder(tmp_path)
    monkeypatch.setattr(room, "memory_limit", lambda: 500_000)
    ((key, wrong),) = refused(tmp_path)
    assert key == "task.size"
    assert wrong.startswith("2 images of 3x100x100 need about 586 KiB of memory, but only 488 KiB")
    folder(tmp_path, size=50)


def test_a_folder_is_known_by_names_and_contents(tmp_path: Path) -> None:
    save(tmp_path / "data" / "a" / "1.png", 1)
    save(tmp_path / "data" / "b" / "1.png", 2)
    digests = [of_folder(tmp_path / "data")]
    (tmp_path / "data").rename(tmp_path / "moved")
    for name in (".DS_Store", ".hidden/x", "cache-1f.arrow"):
        (tmp_path / "moved" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "moved" / name).write_text("x")
    os.utime(tmp_path / "moved" / "a" / "1.png", (1, 1))
    assert of_folder(tmp_path / "moved") == digests[0]
    (tmp_path / "moved" / "a" / "1.png").rename(tmp_path / "moved" / "a" / "2.png")
    digests.append(of_folder(tmp_path / "moved"))
    save(tmp_path / "moved" / "a" / "2.png", 3)
    digests.append(of_folder(tmp_path / "moved"))
    save(tmp_path / "moved" / "b" / "2.png", 3)
    digests.append(of_folder(tmp_path / "moved"))
    assert len(set(digests)) == 4
