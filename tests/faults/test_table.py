"""The fault table (README): every row is tested somewhere."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ROWS: dict[int, tuple[str, ...]] = {  # row of the table -> the tests that hold it
    1: ("faults/test_saves.py::test_only_whole_saves_are_ever_listed",
        "faults/test_saves.py::test_the_next_save_of_that_step_succeeds",
        "train/test_killed.py::test_killed_at_many_moments_equals_unhurt"),
    2: ("train/test_killed.py::test_killed_at_many_moments_equals_unhurt",
        "faults/test_saves.py::test_the_latest_is_restored_and_what_is_half_done_goes"),
    3: ("train/test_killed.py::test_a_full_disk_is_told_and_nothing_is_lost",
        "train/test_killed.py::test_a_disk_that_stays_full_ends_the_run_with_4",
        "train/test_checkpoint.py::test_a_failed_save_is_told_and_training_goes_on",
        "search/test_search_run.py::test_failed_and_altered_saves"),
    4: ("train/test_checkpoint.py::test_a_failed_save_is_told_and_training_goes_on",
        "train/test_checkpoint.py::test_the_final_failure_leaves_the_last_good_save"),
    5: ("train/test_checkpoint.py::test_every_altered_missing_or_unknown_file_is_named",
        "train/test_checkpoint.py::test_by_the_flag_the_save_before_is_used"),
    6: ("faults/test_copies.py::test_a_copied_save_is_accepted_whatever_it_was_copied_with",
        "faults/test_copies.py::test_a_copy_without_its_digests_stops_the_run_and_stays",
        "faults/test_copies.py::test_an_adopted_copy_is_a_save_again"),
    7: ("faults/test_saves.py::test_the_next_save_of_that_step_succeeds",
        "train/test_checkpoint.py::test_a_failed_save_is_told_and_training_goes_on"),
    8: ("train/test_elastic.py::test_a_save_of_eight_devices_is_the_same_bits_on_any_number",
        "train/test_elastic.py::test_from_eight_devices_to_four_to_one",
        "laws/test_devices.py::test_a_checkpoint_of_eight_devices_continues_on_two",
        "laws/test_devices.py::test_devices_and_fsdp_equal_one_device"),
    9: ("train/test_elastic.py::test_one_of_two_processes_is_killed_and_one_goes_on",
        "train/test_processes.py::test_two_processes_stop_together_go_on_and_equal_one",
        "data/test_host.py::test_parts_together_are_the_whole"),
    10: ("train/test_killed.py::test_asked_to_stop_saves_the_last_finished_step_once",
         "train/test_killed.py::test_asked_to_stop_in_a_long_compilation_leaves_with_75",
         "train/test_killed.py::test_asked_to_stop_while_evaluating_saves_first",
         "train/test_killed.py::test_a_save_under_way_is_not_written_twice",
         "faults/test_stops.py::test_asked_to_stop_while_a_network_is_read",
         "search/test_search_run.py::test_interrupted_equals_uninterrupted"),
    11: ("faults/test_stops.py::test_asked_twice_in_the_final_save_it_is_whole_or_not_there",
         "train/test_processes.py::test_two_processes_stop_together_go_on_and_equal_one",
         "train/test_processes.py::"
         "test_a_first_ctrl_c_is_a_sigterm_and_a_second_one_ends_the_process"),
    12: ("data/test_fed_images.py::test_a_killed_worker_ends_the_run_soon",
         "data/test_fed_images.py::test_what_fails_in_a_worker_comes_with_its_traceback"),
    13: ("train/test_elastic.py::test_one_of_two_processes_is_killed_and_one_goes_on",),
    14: ("data/test_fed_images.py::test_a_bad_image_is_named_and_replaced_by_the_next",
         "data/test_fed_images.py::test_too_many_bad_images_end_the_run",
         "faults/test_data_faults.py::test_rows_count_the_images_that_could_not_be_read",
         "faults/test_data_faults.py::"
         "test_the_first_process_counts_those_of_all_at_each_save_or_evaluation",
         "faults/test_data_faults.py::test_other_processes_name_their_bad_images_and_tell_of_them",
         "data/test_records.py::test_a_wrong_record_is_named"),
    15: ("data/test_records.py::test_a_wrong_record_is_named",
         "data/test_source.py::test_from_arrays_names_the_wrong_record",
         "train/test_refusals.py::test_refused_before_anything_happens"),
    16: ("train/test_refusals.py::test_the_classes_of_another_runs_teacher_are_compared",
         "exchange/test_convert.py::test_given_statistics_and_resolution_are_the_network_s",
         "faults/test_stops.py::test_a_teacher_that_is_right_by_chance_is_told_of"),
    17: ("faults/test_stops.py::test_a_teacher_that_changes_after_the_run_began_changes_nothing",
         "faults/test_stops.py::test_a_later_phase_refuses_another_teacher_of_the_same_source",
         "faults/test_stops.py::test_the_digest_of_a_teacher_is_stored_and_its_copy_verified"),
    18: ("train/test_refusals.py::test_the_first_bad_step_is_named_and_never_saved",
         "faults/test_numbers.py::test_a_bad_step_leaves_what_repeats_it"),
    19: ("faults/test_numbers.py::test_nan_in_statistics_alone_is_caught_before_a_row_is_written",
         "faults/test_numbers.py::test_statistics_that_are_not_finite_are_never_saved"),
    20: ("faults/test_numbers.py::test_a_pruned_weight_that_becomes_nonzero_is_never_seen",
         "laws/test_identities.py::test_what_lies_under_a_mask_is_never_seen",
         "exchange/test_export.py::test_tensors_are_masked_and_of_one_batchnorm_set"),
    21: ("faults/test_configs_fuzzed.py::test_an_edited_config_builds_or_is_refused_in_a_sentence",
         "faults/test_studies_fuzzed.py::test_an_edited_study_is_planned_or_refused_in_a_sentence",
         "faults/test_studies_fuzzed.py::test_an_edited_search_begins_or_is_refused_in_a_sentence",
         "test_commands_refuse.py::test_a_config_file_that_does_not_work_is_told_with_its_line",
         "test_launch.py::test_wrong_flags_end_with_a_sentence"),
    22: ("train/test_refusals.py::test_another_config_is_refused_and_the_fields_are_printed",
         "test_launch.py::test_a_folder_with_another_config_is_refused",
         "faults/test_data_faults.py::test_other_data_end_a_start_with_3_and_what_differs",
         "faults/test_data_faults.py::test_where_data_lie_and_who_decodes_them_may_change"),
    23: ("train/test_refusals.py::test_a_second_run_is_refused_and_a_kill_lets_go",
         "faults/test_stops.py::test_a_lock_of_a_process_that_is_gone_holds_nobody"),
    24: ("exchange/test_bad_weights.py::test_a_pickle_is_never_opened_and_the_way_out_is_told",),
    25: ("exchange/test_bad_weights.py::test_a_bad_header_is_refused_in_little_time_and_memory",
         "faults/test_weights_fuzzed.py::test_any_safetensors_file_is_read_or_refused"),
    26: ("exchange/test_bad_weights.py::test_missing_extra_and_misshapen_tensors_are_a_table",
         "faults/test_weights_fuzzed.py::test_tensors_that_do_not_fit_are_a_table_by_name",
         "exchange/test_torch_parity.py::test_the_smallest_of_each_family",
         "exchange/test_torch_parity.py::test_other_efficientnets_would_not_be_the_same"),
    27: ("faults/test_numbers.py::test_too_little_memory_says_what_would_help",
         "faults/test_numbers.py::test_a_device_without_room_says_so_itself",
         "faults/test_numbers.py::"
         "test_a_run_without_room_ends_with_a_sentence_whose_advice_may_be_taken"),
    28: ("faults/test_stops.py::test_a_clock_that_jumps_changes_no_number",
         "faults/test_stops.py::test_without_tensorboard_and_network_it_trains",
         "faults/test_stops.py::test_events_that_cannot_be_noted_are_told_and_cost_nothing",
         "faults/test_saves.py::test_a_slow_disk_delays_the_save_and_not_the_training",
         "train/test_metrics.py::test_tensorboard_without_room_is_left_out",
         "train/test_metrics.py::test_nobody_has_to_listen"),
    29: ("train/test_killed.py::test_killed_at_many_moments_equals_unhurt",
         "train/test_metrics.py::test_cut_back_keeps_what_came_before_the_save",
         "faults/test_stops.py::test_rows_written_after_the_last_save_come_once"),
    30: ("test_launch.py::test_deterministic_reaches_xla_before_the_first_device",
         "faults/test_numbers.py::test_a_step_made_twice_changes_nothing",
         "faults/test_numbers.py::test_a_step_that_does_not_repeat_ends_the_run"),
}


def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", range(1, 31))
def test_every_row_is_held_by_tests_that_exist(row):
    assert ROWS[row]
    for name in ROWS[row]:
        file, _, function = name.partition("::")
        assert function in functions_of(TESTS / file), name


def test_no_row_is_made_up():
    assert set(ROWS) == set(range(1, 31))
