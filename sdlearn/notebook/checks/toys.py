"""A U-Net and a scheduler that are one line of arithmetic each, to try a learner's loop with."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor


class ToyScheduler:
    """Euler's steps, without a memory: level t = 100 sigma."""

    init_noise_sigma = 2.0

    def __init__(self, sigmas: tuple[float, ...]):  # falling, 0 at the end
        self.sigmas, self.timesteps = sigmas, torch.tensor([round(100 * sigma) for sigma in sigmas[:-1]])

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample / ((timestep / 100) ** 2 + 1) ** 0.5

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> DDIMSchedulerOutput:
        i = self.timesteps.tolist().index(int(timestep))
        return DDIMSchedulerOutput(prev_sample=sample + (self.sigmas[i + 1] - self.sigmas[i]) * model_output)


def toy_unet(timesteps: Tensor):  # a U-Net, and a list of what was wrong with the calls of it
    """A U-Net that is one line of arithmetic, and that keeps a list of complaints."""
    complaints = []

    def unet(sample, timestep, encoder_hidden_states):
        b, texts = len(sample), len(encoder_hidden_states)
        if b != texts:
            complaints.append(
                f"the U-Net got {b} latents and {texts} texts: it wants as many of both, latents twice, empty and text"
            )
        if not torch.isin(torch.as_tensor(timestep).float(), timesteps.float()).all():
            complaints.append("the U-Net is to be told t, one of `timesteps`: not sigma, and not the step's number")
        words = encoder_hidden_states.mean((1, 2))[:, None, None, None].repeat(-(-b // texts), 1, 1, 1)
        return UNet2DConditionOutput(sample=(sample.repeat(-(-texts // b), 1, 1, 1) + 2 * words).tanh())

    return unet, complaints
