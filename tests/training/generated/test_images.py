import numpy as np

from training.generated.images import generated_images


def test_generated_images_are_of_four_kinds_all_different_and_the_same_each_time() -> None:
    images, again = generated_images(seed=0), generated_images(seed=0)
    assert set(images) == {"noise", "gradient", "blank", "text"}
    for kind, members in images.items():
        assert {(image.shape, image.dtype) for image in members} == {((1, 256, 256), np.dtype(np.uint8))}
        assert len({image.tobytes() for image in members}) == len(members)
        assert all(np.array_equal(a, b) for a, b in zip(members, again[kind], strict=True))
    assert {len(np.unique(image)) for image in images["blank"]} == {1}
