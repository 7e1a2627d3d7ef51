"""What a finetuning run does: the task, its loss, heads and prompts, epochs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from glm_jax import validation
from glm_jax.checkpoints.config import CheckpointConfig
from glm_jax.convert.positions import DEFAULT_NEW_POSITIONS, NEW_POSITIONS
from glm_jax.data.blanks.config import BlankConfig
from glm_jax.errors import UsageError
from glm_jax.finetune.lora_config import LoraConfig
from glm_jax.finetune.order import LENGTH_WINDOW
from glm_jax.finetune.prompt_config import PromptConfig
from glm_jax.finetune.published import PUBLISHED
from glm_jax.finetune.task_config import TaskConfig
from glm_jax.parallel.layout import LayoutConfig
from glm_jax.parallel.mesh import MeshConfig
from glm_jax.train.optimizer import OptimizerConfig

ATTENTION_CHOICES = ("auto", "xla", "by_head")
LAST_LAYER_CHOICES = ("auto", "targets", "all")


@dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer, where none lies with the initial weights.

    Attributes:
      kind: of `glm_jax.load_tokenizer`, or a folder with a saved tokenizer; "" for the one that is
        with the initial weights.
      files: of the kind.
      task_mask: adds the masks sMASK and gMASK.
      fix_command_token: kind "chinese": the table without the collision of eop and gMASK.
    """

    kind: str = ""
    files: tuple[str, ...] = ()
    task_mask: bool = False
    fix_command_token: bool = False


@dataclass(frozen=True)
class FinetuneConfig:
    """The run itself.

    Attributes:
      run_folder: where configuration, metrics, results and checkpoints go.
      initial_weights: a checkpoint of any kind that `glm_jax.load` opens.
      random_weights: starts the network from random parameters instead, for comparison.
      num_attention_heads: of an original checkpoint, which doesn't record it; 0 for hidden size /
        64.
      epochs: times that every example is seen; 0 evaluates only.
      max_steps: updates that end the run, if its epochs have more; 0 for no such end.
      batch_size: examples of an update.
      accumulation_steps: micro-batches that a batch is split into.
      evaluation_batch_size: examples at a time when their answers are scored.
      evaluate_every_epochs: epochs between evaluations on the dev split.
      patience: evaluations without a better result that end the run; 0 for no early end.
      seed: decides the order of examples, initial extra parameters and dropout.
      seeds: trains once with each of these in place of `seed`, in RUN_FOLDER/seed_N; the results
        are their mean and standard deviation.
      published: a model of `glm_jax.finetune.published`, whose score on the task is set next to
        the results; "" for none.
      max_train_examples: a few-shot run sees so many, which the seed draws, of each label as many
        as of the others; 0 for all.
      length_window: batches among which examples of like length are grouped; 1 for none.
      block_lm_ratio: batches of the pretraining objective, on the task's texts with their answers,
        for each batch of the task; they take the place of some of these. 0 for none.
      new_positions: what rows are added to position tables that end before the task's sequences:
        "random" or "repeat", as `glm-jax convert` adds them.
      dropout: rate of the network's hidden states and attention.
      compute_dtype: "float32" or "bfloat16".
      attention: "xla" or "by_head", as in the model's configuration, or "auto", by_head on CPUs and
        xla elsewhere. The other kinds do not support every length of a batch.
      last_layer: "targets" computes the last layer for the positions that answers are scored at
        only, with the same result; the parameters of the other layers are copied for it, and their
        gradients. "all" computes it for all positions; "auto" is targets on CPUs and all elsewhere.
      remat, scan_layers: as in the model's configuration.
      log_every: steps between lines of metrics.
      freeze: parameters of the network that are not trained: patterns of their paths, such as
        "word_embedding" or "layers/mlp/*"; a pattern of a folder is for all below it.
      freeze_transformer: trains prompts or a head only, and the first `tune_prefix_layers` layers.
      tune_prefix_layers: as in the original.
    """

    run_folder: str
    initial_weights: str
    random_weights: bool = False
    num_attention_heads: int = 0
    epochs: int = 10
    max_steps: int = 0
    batch_size: int = 16
    accumulation_steps: int = 1
    evaluation_batch_size: int = 16
    evaluate_every_epochs: int = 1
    patience: int = 0
    seed: int = 1234
    seeds: tuple[int, ...] = ()
    published: str = ""
    max_train_examples: int = 0
    length_window: int = LENGTH_WINDOW
    block_lm_ratio: float = 0.0
    new_positions: str = DEFAULT_NEW_POSITIONS
    dropout: float = 0.1
    compute_dtype: str = "float32"
    attention: str = "auto"
    last_layer: str = "auto"
    remat: str = "minimal"
    scan_layers: bool = True
    log_every: int = 10
    freeze: tuple[str, ...] = ()
    freeze_transformer: bool = False
    tune_prefix_layers: int = 0

    def __post_init__(self) -> None:
        validation.at_least("finetune", self, 0, "tune_prefix_layers")
        if self.tune_prefix_layers and not self.freeze_transformer:
            raise UsageError(
                f"finetune.tune_prefix_layers is {self.tune_prefix_layers}, which leaves layers "
                "trained that finetune.freeze_transformer freezes, but that is False"
            )
        names = ("batch_size", "accumulation_steps", "evaluation_batch_size", "log_every")
        validation.at_least("finetune", self, 1, *names, "evaluate_every_epochs")
        validation.at_least("finetune", self, 0, "epochs", "patience", "max_train_examples")
        validation.at_least("finetune", self, 0, "max_steps")
        validation.at_least("finetune", self, 0, "num_attention_heads", "seed")
        validation.at_least("finetune", self, 1, "length_window")
        validation.non_negative("finetune", self, "block_lm_ratio")
        validation.choice("finetune", self, "new_positions", NEW_POSITIONS)
        validation.fraction("finetune", self, "dropout", one=False)
        validation.choice("finetune", self, "attention", ATTENTION_CHOICES)
        validation.choice("finetune", self, "last_layer", LAST_LAYER_CHOICES)
        validation.boolean("finetune", self, "scan_layers")
        _check_seeds(self.seeds)
        if self.published:
            validation.choice("finetune", self, "published", PUBLISHED)
        if self.batch_size % self.accumulation_steps:
            raise UsageError(
                f"finetune.batch_size is {self.batch_size}, which finetune.accumulation_steps = "
                f"{self.accumulation_steps} does not divide"
            )

    def attention_on(self, platform: str) -> str:
        """The kind of attention on devices of a platform, by JAX's name of it."""
        if self.attention == "auto":
            return "by_head" if platform == "cpu" else "xla"
        return self.attention

    def computes_last_layer_at_targets(self, platform: str) -> bool:
        """Whether other positions are left out of the last layer, on devices of a platform."""
        return self.last_layer == "targets" or (self.last_layer == "auto" and platform == "cpu")

    def num_steps(self, steps_per_epoch: int) -> int:
        """Updates of the run."""
        steps = self.epochs * steps_per_epoch
        return min(steps, self.max_steps) if self.max_steps else steps


def _check_seeds(seeds: Sequence[int]) -> None:
    """Makes sure that a mean and a deviation can be stated.

    Raises:
      UsageError: there is only one seed, two are equal, or one is negative.
    """
    if not seeds:
        return
    if len(seeds) < 2 or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(
            f"finetune.seeds is {tuple(seeds)!r}; expected at least two different seeds of 0 or "
            "more (finetune.seed is for one)"
        )


@dataclass(frozen=True, kw_only=True)
class FinetuneBaseConfig(ABC):
    """What describes finetuning runs of all kinds; each field is a section of the gin files."""

    mesh: MeshConfig
    layout: LayoutConfig
    tokenizer: TokenizerConfig
    optimizer: OptimizerConfig
    finetune: FinetuneConfig
    checkpoint: CheckpointConfig
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        if self.freezes and self.finetune.random_weights:
            raise UsageError(
                "finetune.random_weights is True, but nothing saves random weights that are frozen "
                "(lora.rank, finetune.freeze, finetune.freeze_transformer)"
            )
        if self.mesh.context > 1:
            raise UsageError(
                f"mesh.context is {self.mesh.context}; finetuning does not shard sequences"
            )

    @property
    def freezes(self) -> bool:
        """Whether a part of the network is not trained."""
        return bool(self.finetune.freeze) or self.freezes_network

    @property
    def freezes_network(self) -> bool:
        """Whether only what is added to the network is trained."""
        return self.finetune.freeze_transformer or self.lora.rank > 0

    @property
    @abstractmethod
    def task_section(self) -> str:
        """The section that describes the task."""

    @property
    @abstractmethod
    def data(self) -> str:
        """The data of the task."""

    @property
    @abstractmethod
    def sequence_length(self) -> int:
        """Maximum positions of a row."""

    @property
    @abstractmethod
    def length_setting(self) -> str:
        """What that is set by."""


@dataclass(frozen=True, kw_only=True)
class FinetuneRunConfig(FinetuneBaseConfig):
    """A finetuning run whose model chooses between labels or answers."""

    task: TaskConfig
    prompt: PromptConfig
    blanks: BlankConfig = field(default_factory=BlankConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora.rank and self.finetune.tune_prefix_layers:
            raise UsageError(
                f"lora.rank is {self.lora.rank}, which freezes the network, but "
                f"finetune.tune_prefix_layers is {self.finetune.tune_prefix_layers}"
            )
        if self.prompt.total and not self.task.cloze:
            raise UsageError("continuous prompts need patterns, and task.cloze is False")
        if self.prompt.num_tokens and not self.task.task.has_slots:
            raise UsageError(
                f"prompt.num_tokens is {self.prompt.num_tokens}, but the patterns of task "
                f"{self.task.name} have no slots"
            )
        if self.prompt.initial == "words" and self.task.task.verbalizers is None:
            raise UsageError(
                f"prompt.initial is 'words', but task {self.task.name} scores answers and has no "
                "verbalizers to start prompts from"
            )
        if self.finetune.block_lm_ratio and not self.task.cloze:
            raise UsageError(
                "finetune.block_lm_ratio needs texts made by patterns, and task.cloze is False"
            )

    @property
    def task_section(self) -> str:
        return "task"

    @property
    def data(self) -> str:
        return self.task.data

    @property
    def sequence_length(self) -> int:
        return self.task.sequence_length

    @property
    def length_setting(self) -> str:
        return "task.sequence_length"
