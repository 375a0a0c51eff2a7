"""`python3 -m unittest discover tests/bench`: the judging, and the reading of what the tools say."""

import unittest

from goals import GOALS, Goal, all_measured, all_met, table
from load import answered_by_h2load, answered_by_wrk, ratio

GOAL = Goal("it", "a figure", 0.95, "ratio")


class Judging(unittest.TestCase):
    def test_a_figure_at_its_goal_meets_it_and_one_above_misses_it(self):
        self.assertEqual(GOAL.verdict({"it": 0.95}), "met")
        self.assertEqual(GOAL.verdict({"it": 0.9501}), "missed")

    def test_what_was_not_measured_is_not_met(self):
        self.assertEqual(GOAL.verdict({}), "not measured")
        self.assertFalse(all_met({}, [GOAL]))
        self.assertIn("| ≤ 0.95 | – | not measured |", table({}, {}, [GOAL]))

    def test_tiny_numbers_are_not_judged(self):
        self.assertIn("| 2.00 | not judged |", table({"it": 2.0}, {}, [GOAL], True))
        self.assertIn("| – | not measured |", table({}, {}, [GOAL], True))
        self.assertFalse(all_measured({}, [GOAL]))

    def test_one_missed_goal_is_not_all_met(self):
        figures = {goal.name: goal.most for goal in GOALS}
        self.assertTrue(all_met(figures))
        self.assertFalse(all_met(figures | {"own_lost": 1}))

    def test_nothing_lost_is_a_figure(self):
        goal = next(goal for goal in GOALS if goal.name == "own_lost")
        self.assertIn("| ≤ 0 | 0 | met |", table({"own_lost": 0}, {}, [goal]))

    def test_each_figure_has_one_goal(self):
        self.assertEqual(len({goal.name for goal in GOALS}), len(GOALS))

    def test_a_ratio_is_taken_within_each_round(self):
        # The machine was three times as slow in the last round.
        costs = {"load": {"ours": [1.0, 1.1, 3.0], "other": [2.0, 2.2, 6.0]}}
        self.assertAlmostEqual(ratio(costs, "load", "ours", "other"), 0.5)


class Reading(unittest.TestCase):
    H2LOAD = (
        "requests: 900 total, 910 started, 900 done, {good} succeeded, {bad} failed, {bad} errored, 0 timeout\n"
        "status codes: {good} 2xx, 0 3xx, 0 4xx, 0 5xx\n"
        "traffic: 1.2MB (1234567) total, 4.4KB (4444) headers (space savings 90.00%), 100KB ({data}) data\n"
    )

    def test_what_the_load_says_is_counted(self):
        self.assertEqual(answered_by_wrk("  123456 requests in 1.00s, 30.00MB read\n"), 123456)
        self.assertEqual(answered_by_h2load(self.H2LOAD.format(good=900, bad=0, data=90000)), 900)

    def test_a_failed_request_is_no_measurement(self):
        for told in "  9 requests in 1.00s\n  Non-2xx or 3xx responses: 1\n", "  Socket errors: connect 0, read 1\n":
            with self.assertRaises(RuntimeError):
                answered_by_wrk(told)
        with self.assertRaises(RuntimeError):
            answered_by_h2load(self.H2LOAD.format(good=899, bad=1, data=90000))

    def test_a_call_that_grpc_refuses_is_no_measurement(self):
        with self.assertRaises(RuntimeError):
            answered_by_h2load(self.H2LOAD.format(good=900, bad=0, data=0))


if __name__ == "__main__":
    unittest.main()
