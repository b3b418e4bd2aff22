"""How do I train on ImageNet? ResNet-50 from TFDS's own builder.

    python examples/imagenet.py --data-dir FOLDER

FOLDER is TFDS's; ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar lie in
FOLDER/downloads/manual the first time. Killed, the same command goes on at the
last finished epoch. The recipe was not run on the whole of ImageNet: its
figures are to be measured.
"""

import argparse
import sys
from pathlib import Path

import keras

import keras_hybrid
from keras_hybrid.study import datasets

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data-dir", help="TFDS's folder")
parser.add_argument("--epochs", type=int, default=90)
parser.add_argument("--batch-size", type=int, default=256)
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--train-size", type=int, help="images (default: all)")
parser.add_argument("--output", type=Path, default=Path("imagenet-results"))
options = parser.parse_args()

try:
    data = datasets.load(
        "imagenet2012", options.data_dir, options.train_size, options.image_size
    )
except ValueError as error:
    print(error)
    sys.exit(2)

keras.utils.set_random_seed(0)
model = keras.applications.ResNet50(
    weights=None, input_shape=data.image_shape, classes=data.classes
)
model.compile(
    # AdamW for 60 % of the epochs, then SGD at the rate Adam's steps imply.
    keras_hybrid.HybridOptimizer(
        1e-3,
        weight_decay=0.05,
        cooldown=keras_hybrid.transitions.Cooldown(),
    ),
    keras.losses.SparseCategoricalCrossentropy(),
    metrics=["accuracy"],
)
backup = keras_hybrid.ExactBackup(options.output / "training.npz")
training, steps = datasets.training_pipeline(
    data, options.batch_size, 0, backup.next_epoch, options.epochs
)
model.fit(
    training,
    steps_per_epoch=steps,
    epochs=options.epochs,
    shuffle=False,
    validation_data=datasets.evaluation_pipeline(data, "validation", 100),
    callbacks=[
        backup,
        keras_hybrid.SwitchCallback(
            keras_hybrid.triggers.AtEpoch(max(1, int(0.6 * options.epochs)))
        ),
    ],
)
print(
    model.evaluate(
        datasets.evaluation_pipeline(data, "test", 100),
        verbose=0,
        return_dict=True,
    )
)
model.save(options.output / "model.keras")
