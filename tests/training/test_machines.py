"""Devices and processes as the Trainer gets them, and Ctrl-C."""

import os
import signal
import threading

import pytest
import torch

from diffeo.errors import ConfigError, TrainingError
from diffeo.training.interrupts import interrupts
from diffeo.training.machines import trainer_arguments
from diffeo.training.settings import TrainingSettings


def arguments(**settings):
    made = trainer_arguments(TrainingSettings(**settings))
    return made["devices"], made["num_nodes"], made["strategy"]


def test_the_settings_reach_the_trainer(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert arguments() == (1, 1, "auto")
    assert arguments(devices=2) == (2, 1, "ddp")
    assert arguments(devices=4, num_nodes=2, strategy="fsdp") == (4, 2, "fsdp")
    assert trainer_arguments(TrainingSettings(precision="bf16"))["precision"] == "bf16-mixed"


def test_torchrun_is_heard(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "6")
    assert arguments() == (2, 3, "ddp")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="use --device cpu"):
        arguments(device="cuda")


def test_the_first_interrupt_is_a_wish_and_the_second_an_end():
    before = signal.getsignal(signal.SIGINT)
    with interrupts() as pressed:
        assert not pressed()
        os.kill(os.getpid(), signal.SIGINT)
        assert pressed()
        with pytest.raises(TrainingError, match="--resume"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_of_the_main_thread_nothing_is_caught():
    seen = []

    def work():
        with interrupts() as pressed:
            seen.append((pressed(), signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
