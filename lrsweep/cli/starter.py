"""The spec that `lrsweep init` writes: it runs as it stands, and shows by comments what else a spec may say."""

TEXT = """\
# A learning-rate sweep: every optimizer at every rate of the grid, with several seeds.
#   lrsweep run THIS_FILE            train what is missing, write tables and pictures below results/<name>
#   lrsweep list                     the tasks, models, optimizers and schedules there are, with their arguments
name: my-first-sweep

# What is trained: a built-in task, or your own function: `mytask.py:make_task`.
# Your own table: {name: csv, path: data.csv, target: the_column}
task: digits

# Left out, it is the task's own model.
model: {name: mlp, hidden: [64]}

# The rates: log-spaced, both ends included. Also {min: 1e-6, max: 1, points: 13}, or a list, such as the set of the
# textbooks:
# lr: [0.1, 0.01, 1e-3, 1e-4, 1e-5]
lr: {min: 1e-5, max: 1, per_decade: 2}

# A name, or a mapping with arguments of torch.optim; `lr` and `schedule` may differ per optimizer, and `label` is what
# its curve is called.
optimizers:
  - sgd
  - {name: sgd, momentum: 0.9}
  - adam
  # - {name: adamw, weight_decay: 0.1, lr: {min: 1e-5, max: 0.1, per_decade: 2}}
  # - {name: "my_opts.py:Lion", label: lion}

# A factor on the rate over the run. Also {name: linear, end: 0.01}, {name: cosine, warmup: 0.1}, ...
schedule: constant

# How many seeds (0, 1, 2), or a list of them. The seed decides the initial weights and the order of the batches.
seeds: 3

train:
  epochs: 10            # or steps: 1000
  batch_size: 64        # or full
  # clip_norm: 1.0
  # dtype: float64      # float32, float64, bfloat16

# What a good run is: a column of curves.csv, and when: final, best, mean, last_10.
objective: {metric: val_loss, at: final}

# Any other value may be an axis; the sweep is the product.
# axes: {train.batch_size: [16, 64, 256]}
"""
