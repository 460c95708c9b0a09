"""Flower's wrappers for differential privacy, each around Flower's FedAvg, as a user names them by import path."""

from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)


def inner(fraction_evaluate):
    return FedAvg(fraction_evaluate=fraction_evaluate, min_available_nodes=6)


class ServerFixed(DifferentialPrivacyServerSideFixedClipping):
    def __init__(self, clipping_norm=0.05, noise_multiplier=0.0, fraction_evaluate=1.0):
        super().__init__(inner(fraction_evaluate), noise_multiplier, clipping_norm, num_sampled_clients=6)


class ClientFixed(DifferentialPrivacyClientSideFixedClipping):
    def __init__(self, clipping_norm=0.05, noise_multiplier=0.0, fraction_evaluate=1.0):
        super().__init__(inner(fraction_evaluate), noise_multiplier, clipping_norm, num_sampled_clients=6)


class ServerAdaptive(DifferentialPrivacyServerSideAdaptiveClipping):
    def __init__(self, noise_multiplier=0.1, fraction_evaluate=1.0):
        super().__init__(inner(fraction_evaluate), noise_multiplier, num_sampled_clients=6, initial_clipping_norm=0.05)


class ClientAdaptive(DifferentialPrivacyClientSideAdaptiveClipping):
    def __init__(self, noise_multiplier=0.1, fraction_evaluate=1.0):
        super().__init__(inner(fraction_evaluate), noise_multiplier, num_sampled_clients=6, initial_clipping_norm=0.05)
