"""ROUGE as a local `evaluate` module over rouge_score: `evaluate.load("<this file>")` needs no hub.

`evaluate` copies this file and imports the copy, so it depends on nothing of ffnfold.
"""

import datasets
import evaluate
import rouge_score  # noqa: F401  (named so that evaluate reports it when it is missing)
from rouge_score import rouge_scorer

TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


class Rouge(evaluate.Metric):
    """F1 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum for each pair of texts, without stemming.

    Source: Lin 2004, "ROUGE: A package for automatic evaluation of summaries".
    """

    def _info(self):
        return evaluate.MetricInfo(
            description="ROUGE F1 for each pair, without stemming.",
            citation="Lin 2004",
            inputs_description="predictions and references: lists of texts; lines are sentences for rougeLsum.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references):
        scorer = rouge_scorer.RougeScorer(TYPES, use_stemmer=False)
        scores = [
            scorer.score(reference, prediction) for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {name: [score[name].fmeasure for score in scores] for name in TYPES}
