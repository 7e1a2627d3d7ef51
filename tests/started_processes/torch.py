"""Comes first on the path of the commands that tests start: an installation without torch.

Only tests need torch. Where it is installed, tensorboardX would import it, for 1.5 seconds.
"""

raise ModuleNotFoundError("No module named 'torch'", name="torch")
