from trilemma.testing import parametrize_with_checks


@parametrize_with_checks(["angular", "angular:grid=linspace"])
def test_angular(check):
    check()
