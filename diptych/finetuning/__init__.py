"""Fine-tuning that keeps what the model knew: what starts, what is delivered, what was lost (docs/finetuning.md)."""
