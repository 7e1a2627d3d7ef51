"""What texts are written for, and how they are searched for."""

from __future__ import annotations

from dataclasses import dataclass, field

from glm_jax import validation
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneBaseConfig, TokenizerConfig
from glm_jax.finetune.prefix_config import PrefixConfig
from glm_jax.generate.settings import Sampling
from glm_jax.parallel.mesh import MeshConfig
from glm_jax.seq2seq.catalog import answers
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.seq2seq.task import Seq2SeqTask
from glm_jax.tasks.registry import unknown_task


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The task, and the form of its sources.

    Attributes:
      name: one of `SEQ2SEQ_TASKS`.
      data: the folder with its files.
      source_length: S, of a source in tokens.
      target_length: T, of an output in tokens.
      pad_source: fills sources up to S with padding that the model sees, as the original does;
        released finetuned checkpoints were trained so.
      original_rouge: computes ROUGE as the original does, with its faults, to compare with it.
      label_smoothing: of training: weight of the loss that is spread evenly over all tokens.
      seed: draws the blanks of the task `blank`.
      prompt_field, answer_field: of the task `answers`, what these fields of its lines are called.
      history_field: of the task `answers`, the field with earlier turns; "" for data without.
      prompt_prefix: of the task `answers`, text before every prompt.
    """

    name: str
    data: str
    source_length: int = 448
    target_length: int = 64
    pad_source: bool = False
    original_rouge: bool = False
    label_smoothing: float = 0.0
    seed: int = 1234
    prompt_field: str = "prompt"
    answer_field: str = "response"
    history_field: str = ""
    prompt_prefix: str = ""

    def __post_init__(self) -> None:
        if self.name not in SEQ2SEQ_TASKS:
            raise UsageError(f"seq2seq.name: {unknown_task(self.name, SEQ2SEQ_TASKS)}")
        validation.at_least("seq2seq", self, 8, "source_length")
        validation.at_least("seq2seq", self, 1, "target_length")
        validation.at_least("seq2seq", self, 0, "seed")
        validation.fraction("seq2seq", self, "label_smoothing", one=False)
        validation.boolean("seq2seq", self, "pad_source", "original_rouge")
        metrics = self.task.metrics
        if self.original_rouge and not any(name.startswith("rouge") for name in metrics):
            raise UsageError(
                f"seq2seq.original_rouge is True, but task {self.name} is not judged by ROUGE"
            )

    @property
    def task(self) -> Seq2SeqTask:
        """The task itself."""
        if self.name != answers.NAME:
            return SEQ2SEQ_TASKS[self.name]
        fields = answers.AnswerFields(
            self.prompt_field, self.answer_field, self.history_field, self.prompt_prefix
        )
        return answers.answers_task(fields, self.target_length)


@dataclass(frozen=True)
class GenerationConfig:
    """Beam search, or drawing.

    Attributes:
      beams: hypotheses that are kept.
      length_penalty: a hypothesis' score is its log-probability / length^penalty.
      min_length: minimum tokens of an output.
      no_repeat_ngram: size of n-grams that an output may not repeat; 0 allows all.
      batch_size: sources at a time.
      temperature: above 0, one output is drawn for each source in place of a search; `beams` must
        be 1 then.
      top_k, top_p: limit drawing, as in `Sampling`.
      seed: of drawing.
      num_attention_heads: of an original checkpoint that is evaluated, which doesn't record it; 0
        for hidden size / 64.
    """

    beams: int = 5
    length_penalty: float = 0.7
    min_length: int = 0
    no_repeat_ngram: int = 3
    batch_size: int = 8
    num_attention_heads: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        validation.at_least("generation", self, 1, "beams", "batch_size")
        validation.at_least("generation", self, 0, "top_k", "seed")
        validation.non_negative("generation", self, "temperature")
        validation.fraction("generation", self, "top_p", one=True)
        if self.temperature and self.beams > 1:
            raise UsageError(
                f"generation.temperature is {self.temperature}, which draws, but generation.beams "
                f"is {self.beams}"
            )
        validation.at_least("generation", self, 0, "min_length", "no_repeat_ngram")
        validation.at_least("generation", self, 0, "num_attention_heads")
        validation.non_negative("generation", self, "length_penalty")

    def sampling(self, target_length: int) -> Sampling:
        """The settings of a search for outputs of at most `target_length` tokens.

        Raises:
          UsageError: `min_length` is above it.
        """
        if self.min_length > target_length:
            raise UsageError(
                f"generation.min_length is {self.min_length}, but seq2seq.target_length only "
                f"{target_length}"
            )
        if self.temperature:
            return Sampling(
                max_blank_length=target_length,
                min_blank_length=self.min_length,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                seed=self.seed,
                no_repeat_ngram=self.no_repeat_ngram,
            )
        return Sampling(
            max_blank_length=target_length,
            min_blank_length=self.min_length,
            beams=self.beams,
            length_penalty=self.length_penalty,
            no_repeat_ngram=self.no_repeat_ngram,
        )


@dataclass(frozen=True)
class Seq2SeqEvaluationConfig:
    """Everything that an evaluation needs; each field is a section."""

    mesh: MeshConfig
    tokenizer: TokenizerConfig
    seq2seq: Seq2SeqConfig
    generation: GenerationConfig


@dataclass(frozen=True, kw_only=True)
class Seq2SeqRunConfig(FinetuneBaseConfig):
    """A finetuning run whose model learns to write texts."""

    seq2seq: Seq2SeqConfig
    generation: GenerationConfig
    prefix: PrefixConfig = field(default_factory=PrefixConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.generation.sampling(self.seq2seq.target_length)
        settings = self.finetune
        has_prefix = self.seq2seq.name == answers.NAME
        for name, is_set in (
            ("prefix.num_tokens", self.prefix.num_tokens and not has_prefix),
            ("finetune.tune_prefix_layers", settings.tune_prefix_layers),
            ("finetune.block_lm_ratio", settings.block_lm_ratio),
            ("finetune.freeze_transformer", settings.freeze_transformer),
        ):
            if is_set:
                raise UsageError(f"{name} is set, which tasks that write texts do not have")
        if self.lora.rank and self.prefix.num_tokens:
            raise UsageError("lora.rank and prefix.num_tokens are both set; expected one of them")

    @property
    def freezes_network(self) -> bool:
        return super().freezes_network or self.prefix.num_tokens > 0

    @property
    def evaluation(self) -> Seq2SeqEvaluationConfig:
        """How its checkpoints are evaluated."""
        return Seq2SeqEvaluationConfig(self.mesh, self.tokenizer, self.seq2seq, self.generation)

    @property
    def task_section(self) -> str:
        return "seq2seq"

    @property
    def data(self) -> str:
        return self.seq2seq.data

    @property
    def sequence_length(self) -> int:
        return self.seq2seq.source_length + self.seq2seq.target_length

    @property
    def length_setting(self) -> str:
        return "seq2seq.source_length + seq2seq.target_length"
