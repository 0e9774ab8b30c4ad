"""What federated transcription is compared with, on the same clients and parts of the data.

Each is a :class:`~dpsd.benchmarks.methods.Method`, and a frozen dataclass of its settings, among
them those of the partition (:class:`~dpsd.benchmarks.federated.clients.Clients`). Accuracy is
measured on the split that the task measures on, which no method sees, unless its module says so.

=================  =====================  ==========================================  ==============
module             method                 what leaves a client                        ε protects
=================  =====================  ==========================================  ==============
alone              Alone                  nothing                                     nothing
alone              Together               its model, asked on each image              nothing
alone              Centralised            its data                                    nothing
averaging          Averaging              its model, in each round (FedAvg, FedProx)  nothing
private_averaging  PrivateAveraging       its model, clipped; the server adds noise   a client
private_averaging  LocalPrivateSGD        its model, trained by DP-SGD                a record
distilling         FedDF                  its model, once                             nothing
dense              Dense                  its model, once                             nothing
transcribing       FederatedTranscribing  noisy answers                               its answers
=================  =====================  ==========================================  ==============

>>> from dpsd.benchmarks.federated.averaging import Averaging
>>> Averaging(clients=10, alpha=0.3, rounds=5).name
'FedAvg, 5 rounds'
"""
