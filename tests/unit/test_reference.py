"""The NumPy reference agrees with logits that other programs have recorded, so it can judge the kernels."""

import numpy as np
import oracle_models
import pytest
from divergence import kl_divergence
from reference_llama import reference_logits


@pytest.mark.parametrize("name", oracle_models.MODELS)
def test_logits_agree_with_the_recorded_ones(name, tmp_path):
    ids, expected = oracle_models.recorded(name)
    logits = reference_logits(oracle_models.write(name, tmp_path / "model.gguf"), ids)
    assert logits.shape == expected.shape and logits.dtype == np.float32
    assert np.abs(logits - expected).max() < oracle_models.tolerance(name)
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.75


def test_a_position_does_not_see_what_comes_after_it(tiny_model):
    ids = [5, 200, 17, 299, 40, 3]
    whole = reference_logits(tiny_model, ids)
    for n in range(1, len(ids)):
        np.testing.assert_allclose(reference_logits(tiny_model, ids[:n]), whole[:n], rtol=0, atol=1e-4)


def test_divergence_of_known_distributions():
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.25, 0.5]])
    shifted = np.log(q).astype(np.float32) + 7  # logits are only known up to a constant
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    np.testing.assert_allclose(kl_divergence(np.log(p).astype(np.float32), shifted), [expected], rtol=1e-6)
    assert abs(kl_divergence(shifted, shifted)[0]) < 1e-12
