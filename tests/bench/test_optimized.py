"""`python3 -m unittest discover tests/bench`: no crate on the read path is built small."""

import unittest

import optimized

BELOW = {"daemon": {"server", "cli"}, "server": {"parser", "macros"}, "cli": {"colours"}, "parser": set(), "macros": set(), "colours": set()}


class Optimized(unittest.TestCase):
    def test_a_crate_below_a_fast_one_is_missed(self):
        self.assertEqual(optimized.missing("daemon", BELOW, {"server"}, {"cli", "macros"}), ["parser"])

    def test_a_new_direct_dependency_is_missed(self):
        self.assertEqual(optimized.missing("daemon", BELOW, {"server", "parser"}, {"macros"}), ["cli"])

    def test_what_is_below_a_crate_off_the_path_is_not_asked_for(self):
        self.assertEqual(optimized.missing("daemon", BELOW, {"server", "parser"}, {"cli", "macros"}), [])

    def test_the_profile_names_every_crate_on_the_read_path(self):
        self.assertIsNone(optimized.judge())
