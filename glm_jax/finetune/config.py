"""What a finetuning run does: the task, its loss, heads and prompts, epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_jax import validation
from glm_jax.checkpoints.checkpoints import CheckpointConfig
from glm_jax.errors import UsageError
from glm_jax.finetune.heads import POOLS
from glm_jax.finetune.losses import LOSSES
from glm_jax.finetune.prompts import PROMPT_ENCODERS
from glm_jax.parallel.layout import LayoutConfig
from glm_jax.parallel.mesh import MeshConfig
from glm_jax.tasks import Task, find_task
from glm_jax.tasks.custom import custom_task
from glm_jax.tasks.task import few_shot
from glm_jax.train.optimizer import OptimizerConfig


@dataclass(frozen=True)
class TaskConfig:
    """The task, how it is asked, and how answers are scored.

    Attributes:
      name: a task of `glm_jax.tasks`, "custom", or a Python file with a task of your own, such as
        "my_task.py" (see `find_task`).
      data: the folder with its files, or a prepared TFDS data set, such as "tfds:super_glue/copa".
      few_shot: takes FewSuperGLUE's splits: `dev32.jsonl` as dev, `val.jsonl` as test.
      sequence_length: L.
      pattern: id of the pattern.
      cloze: whether blanks are filled; else a head classifies.
      multi_token: scores all tokens of verbalizers.
      length_penalty: scores of answers are divided by their length to this power.
      loss: "cross_entropy", "hinge", "generative" or "mix".
      label_smoothing: weight of the loss that is spread evenly over the choices.
      pool: what a head sees: "cls", "pad" or "start".
      patterns: of a custom task, such as "{text} It was [MASK].".
      words: of a custom task: the word that fills the blank, for each label.
      label: of a custom task: the field with the label.
    """

    name: str
    data: str
    few_shot: bool = False
    sequence_length: int = 256
    pattern: int = 0
    cloze: bool = True
    multi_token: bool = False
    length_penalty: float = 0.0
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    pool: str = "cls"
    patterns: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    label: str = "label"

    def __post_init__(self) -> None:
        validation.at_least("task", self, 8, "sequence_length")
        validation.at_least("task", self, 0, "pattern")
        validation.non_negative("task", self, "length_penalty")
        validation.choice("task", self, "loss", LOSSES)
        validation.choice("task", self, "pool", POOLS)
        validation.fraction("task", self, "label_smoothing", one=False)
        task = self.task
        if (self.patterns or self.words) and self.name != "custom":
            raise UsageError(
                f"task.patterns and task.words describe a custom task, but task.name is "
                f"{self.name!r}"
            )
        if not task.metrics:
            raise UsageError(
                f"task {self.name} has one answer to each question, so that nothing is chosen; it "
                "is for pretraining, in data.tasks"
            )
        if not self.cloze and task.encode is not None:
            raise UsageError(f"task {self.name} has no inputs of a head; leave task.cloze True")
        if self.cloze and task.pattern is None:
            raise UsageError(f"task {self.name} has no patterns; set task.cloze = False")
        if self.cloze and self.pattern >= task.num_patterns:
            raise UsageError(
                f"task.pattern is {self.pattern}; task {self.name} has 0 to {task.num_patterns - 1}"
            )

    @property
    def task(self) -> Task:
        """The task itself."""
        if self.name == "custom":
            task = custom_task(self.patterns, self.words, label=self.label)
        else:
            task = find_task(self.name)
        return few_shot(task) if self.few_shot else task


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
class PromptConfig:
    """Continuous prompts.

    Attributes:
      num_tokens: shared by the slots of the pattern; 0 for none.
      prefix: before the pattern.
      encoder: "lstm", "mlp" or "none".
    """

    num_tokens: int = 0
    prefix: int = 0
    encoder: str = "lstm"

    def __post_init__(self) -> None:
        validation.at_least("prompt", self, 0, "num_tokens", "prefix")
        validation.choice("prompt", self, "encoder", PROMPT_ENCODERS)

    @property
    def total(self) -> int:
        """All prompts of an example."""
        return self.num_tokens + self.prefix


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
      batch_size: examples of an update.
      accumulation_steps: micro-batches that a batch is split into.
      evaluation_batch_size: examples at a time when their answers are scored.
      evaluate_every_epochs: epochs between evaluations on the dev split.
      patience: evaluations without a better result that end the run; 0 for no early end.
      seed: decides the order of examples, initial extra parameters and dropout.
      max_train_examples: a few-shot run sees only the first so many; 0 for all.
      dropout: rate of the network's hidden states and attention.
      compute_dtype: "float32" or "bfloat16".
      remat: as in the model's configuration.
      log_every: steps between lines of metrics.
    """

    run_folder: str
    initial_weights: str
    random_weights: bool = False
    num_attention_heads: int = 0
    epochs: int = 10
    batch_size: int = 16
    accumulation_steps: int = 1
    evaluation_batch_size: int = 16
    evaluate_every_epochs: int = 1
    patience: int = 0
    seed: int = 1234
    max_train_examples: int = 0
    dropout: float = 0.1
    compute_dtype: str = "float32"
    remat: str = "none"
    log_every: int = 10

    def __post_init__(self) -> None:
        names = ("batch_size", "accumulation_steps", "evaluation_batch_size", "log_every")
        validation.at_least("finetune", self, 1, *names, "evaluate_every_epochs")
        validation.at_least("finetune", self, 0, "epochs", "patience", "max_train_examples")
        validation.at_least("finetune", self, 0, "num_attention_heads", "seed")
        validation.fraction("finetune", self, "dropout", one=False)
        if self.batch_size % self.accumulation_steps:
            raise UsageError(
                f"finetune.batch_size is {self.batch_size}, which finetune.accumulation_steps = "
                f"{self.accumulation_steps} does not divide"
            )


@dataclass(frozen=True)
class FinetuneRunConfig:
    """Everything that describes a finetuning run; each field is a section of the gin files."""

    mesh: MeshConfig
    layout: LayoutConfig
    tokenizer: TokenizerConfig
    task: TaskConfig
    prompt: PromptConfig
    optimizer: OptimizerConfig
    finetune: FinetuneConfig
    checkpoint: CheckpointConfig

    def __post_init__(self) -> None:
        if self.prompt.total and not self.task.cloze:
            raise UsageError("continuous prompts need patterns, and task.cloze is False")
        if self.prompt.num_tokens and not self.task.task.has_slots:
            raise UsageError(
                f"prompt.num_tokens is {self.prompt.num_tokens}, but the patterns of task "
                f"{self.task.name} have no slots"
            )
        if self.mesh.context > 1:
            raise UsageError(
                f"mesh.context is {self.mesh.context}; finetuning does not shard sequences"
            )
