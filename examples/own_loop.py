"""Write the training loop: each step draws the pairs on which the loss was highest so far."""

import tastemaker as tm


def main(
    pairs: str = "runs/demo/pairs", output: str = "hardest-first", max_steps: int = 50
) -> None:
    """Train on the hardest pairs."""
    trainer = tm.PreferenceTrainer(
        "nano", pairs, output=output, max_steps=max_steps, learning_rate=1e-3, report_to=None
    )
    hardness = dict.fromkeys(range(len(trainer.data)), float("inf"))
    while trainer.done < max_steps:
        hardest = sorted(hardness, key=hardness.__getitem__, reverse=True)[:4]
        row = trainer.train_step(trainer.batch(trainer.done, pairs=hardest))
        hardness |= dict.fromkeys(hardest, row["loss"])
        print(trainer.done, row["loss"], row["rewards/accuracies"])
    trainer.save_model()


if __name__ == "__main__":
    main()
