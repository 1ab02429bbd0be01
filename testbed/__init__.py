"""What tests, benchmarks and the notebook share, and neither training nor serving needs.

`photographs` and `scenes` render pictures of digits; `stand_in` and `replicas` are model servers without a model; `turns`
measures speed, one case at a time; `report` prints and saves figures.
Nothing in `trainer/` or `serving/` imports this package.
"""
