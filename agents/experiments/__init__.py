"""Experiments: arms x pairs x seeds, written resumably, measured by a judge that nothing else uses, compared in pairs.

    experiment = load_experiment("examples/experiments/guidance.yaml")
    outcome = run_experiment(experiment, Path("runs/guidance"), lambda: LatentModel.from_pretrained(experiment.model))
    print(markdown(outcome.results))

Modules, lowest first: `statistics`, `options`, `task` (what an arm is given), `vectors`, `arms` (how texts are written:
`ARMS`), `names` (of arms), `spec` (the file), `pairs`, `folder` (of a run, and who claims what), `cells` (units of work
on the disk), `bench` (what measures have in common), `measures` (`MEASURES`), `manifest`, `run_results`, `results`,
`tables`, `figures`, `work` (the way of a run through its cells), `runner`, `estimate` (a dry run), `report_content`,
`report`.

Experiments over scenarios have the same order: `play_spec`, `play_file`, `play_cells`, `play_measures`
(`PLAY_MEASURES`), `play_manifest`, `play_estimate`, `play_results`, `play_tables`, `plays` (`run_plays`).
"""
