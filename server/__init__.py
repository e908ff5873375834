"""The coordinator: enrolment, rounds, aggregation, evaluation, release."""
