"""Experiments: arms x items x seeds, written resumably, measured by a judge that nothing else uses, compared in pairs.

    experiment = load_experiment("examples/experiments/guidance.yaml")
    outcome = run_experiment(experiment, Path("runs/guidance"), lambda: LatentModel.from_pretrained(experiment.model))
    print(markdown(outcome.results))

What an experiment is over is a `kind`: pairs of context and terminal (`pairs`), or scenarios (`scenarios`). Each has
its file (`spec`), its `cells`, its `measures`, and a `kind` that ties them together; of pairs there are also the
`source`, the `arms` with their `options`, and `writing`, where these become arguments of `steer`'s writing.
All else is for any kind; `kind` is the contract.
"""
