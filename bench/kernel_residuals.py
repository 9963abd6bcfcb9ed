"""How much structure the kernel laws leave: boosted trees on their residuals, five-fold, beside the laws alone.

    python bench/kernel_residuals.py DATA_DIR OP       (needs the `calibrate` extra and scikit-learn)

What the trees find is in the shapes and missing in the law; what they leave is the tables' own noise, and which
library happened to measure a shape.
"""

import sys

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict

from capacity.laws.kernels.tables import SHAPES
from capacity.validation.kernels import BEST, predict, read_tables


def errors(ratio):
    off = np.abs(np.expm1(ratio))
    return f"{np.median(off) * 100:5.1f} / {np.quantile(off, 0.9) * 100:4.0f}"


def main(folder, op):
    table = read_tables(folder)[op]
    table = table[(table["engine"] == BEST) | (op == "collective")].reset_index(drop=True)
    rows = predict(op, table)
    print("median / 90th percentile of the error in %: the law; with trees")
    for (device, dtype), part in rows.groupby(["device", "dtype"]):
        if len(part) < 200:
            continue
        shapes = np.log2(np.maximum(table.loc[part.index, list(SHAPES[op])].to_numpy(dtype=float), 0.5))
        features = np.column_stack([shapes, np.log(part["mid"])])
        missed = np.log(part["measured"] / part["mid"]).to_numpy()
        trees = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.05, loss="absolute_error")
        found = cross_val_predict(trees, features, missed, cv=KFold(5, shuffle=True, random_state=0))
        print(f"{op} {dtype:20} {device:10} {errors(-missed)}   {errors(found - missed)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
