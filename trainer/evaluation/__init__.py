"""A trained model and labelled images -> metrics, figures, the report and the model card.

    predict.py (logits) -> metrics.py (Evaluation) -> figures.py (PNG files) -> report.py (report.html, model_card.md)

In: a model and a split. Out: an `Evaluation` and files in the run's folder. Next: `trainer/publishing/`.
"""
