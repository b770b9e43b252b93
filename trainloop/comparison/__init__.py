"""Several optimizers on one problem, several times: who gets how far, in which time, at which cost.

entrant         what is compared: an optimizer with its settings

on one network
    folder      the files of a comparison, and the runs that belong to it
    running     the runs, each in a process of its own
    watching    what a person sees of them
    outcome     what is left of a run
    score       one row of numbers per optimizer
    curves      figures
    page        the report

over a whole collection of problems
    collection      the runs, and a file that keeps what is done
    profiles        performance and data profiles
    problems_page   the report

html            what both reports are made with
"""
