"""What is known about each bundled data set: its columns with their units, its source, its default model."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Column:
    """One column: what it holds and its unit; `levels` orders a factor, reference level first."""

    description: str
    unit: str | None = None
    levels: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        return self.unit is None


@dataclass(frozen=True)
class Dataset:
    """One data set: what it is, where it comes from and the model that the command line fits by default."""

    name: str
    title: str
    description: str
    rows: int
    columns: Mapping[str, Column]
    source: str
    formula: str
    residual: str | None = None

    @property
    def units(self) -> dict[str, str]:
        """Unit of each numeric column."""
        return {name: column.unit for name, column in self.columns.items() if column.unit is not None}


def _read_only(**columns: Column) -> Mapping[str, Column]:
    return MappingProxyType(columns)


_LME4 = "Table shipped with the R package lme4 (GPL >= 2)"
_NLME = "Table shipped with the R package nlme (GPL >= 2)"
_PINHEIRO_BATES = "Pinheiro and Bates (2000), Mixed-Effects Models in S and S-PLUS, Springer, appendix A"
_DAVIES = "Davies and Goldsmith, eds (1972), Statistical Methods in Research and Production, Oliver and Boyd"


RECORDS: tuple[Dataset, ...] = (
    Dataset(
        name="sleepstudy",
        title="Reaction time under sleep restriction",
        description="Mean reaction time of 18 people on ten days, with three hours in bed a night.",
        rows=180,
        columns=_read_only(
            Reaction=Column("mean reaction time of the day", "ms"),
            Days=Column("day of the study; days 0 and 1 are training, day 2 is the baseline", "day"),
            Subject=Column("person"),
        ),
        source=f"Belenky et al. (2003), Journal of Sleep Research 12, 1-12. {_LME4}.",
        formula="Reaction ~ Days + (Days | Subject)",
    ),
    Dataset(
        name="orthodont",
        title="Growth of a jaw distance in children",
        description="Distance from pituitary to pterygomaxillary fissure of 27 children at four ages.",
        rows=108,
        columns=_read_only(
            distance=Column("distance from pituitary to pterygomaxillary fissure, on X-ray images", "mm"),
            age=Column("age of the child", "year"),
            Subject=Column("child: M01 to M16 and F01 to F11"),
            Sex=Column("sex of the child", levels=("Male", "Female")),
        ),
        source=f"Potthoff and Roy (1964), Biometrika 51, 313-326; {_PINHEIRO_BATES}.17. {_NLME}.",
        formula="distance ~ age * Sex + (age | Subject)",
    ),
    Dataset(
        name="bodyweight",
        title="Body weight of rats on three diets",
        description="Weight of 16 rats on three diets, on 11 days over nine weeks at unequal intervals.",
        rows=176,
        columns=_read_only(
            weight=Column("body weight", "g"),
            Time=Column("day of the measurement", "day"),
            Rat=Column("rat"),
            Diet=Column("diet of the rat", levels=("1", "2", "3")),
        ),
        source=f"Crowder and Hand (1990), Analysis of Repeated Measures, Chapman and Hall; "
        f"{_PINHEIRO_BATES}.3. {_NLME}.",
        formula="weight ~ Time * Diet + (Time | Rat)",
        residual="Exponential(Time) + Independent()",
    ),
    Dataset(
        name="dyestuff",
        title="Yield of a dyestuff by batch",
        description="Yield of five preparations of a dyestuff from each of six batches of its precursor.",
        rows=30,
        columns=_read_only(
            Batch=Column("batch of the intermediate product"),
            Yield=Column("yield, as grams of standard colour", "g"),
        ),
        source=f"{_DAVIES}, section 6.4. {_LME4}.",
        formula="Yield ~ 1 + (1 | Batch)",
    ),
    Dataset(
        name="pastes",
        title="Strength of a chemical paste by batch and cask",
        description="Strength of a paste in two assays of each of three casks from each of ten deliveries.",
        rows=60,
        columns=_read_only(
            strength=Column("paste strength; the source names no unit", "unit not stated"),
            batch=Column("delivery batch"),
            cask=Column("cask within its batch: the labels a, b, c repeat in every batch"),
            sample=Column("batch and cask together, such as A:a"),
        ),
        source=f"{_DAVIES}, section 6.5. {_LME4}.",
        formula="strength ~ 1 + (1 | batch/cask)",
    ),
    Dataset(
        name="penicillin",
        title="Penicillin assays on plates",
        description="Growth of B. subtilis inhibited by six samples of penicillin, all on each of 24 plates.",
        rows=144,
        columns=_read_only(
            diameter=Column("diameter of the zone where growth is inhibited", "mm"),
            plate=Column("assay plate"),
            sample=Column("penicillin sample"),
        ),
        source=f"{_DAVIES}, section 6.6. {_LME4}.",
        formula="diameter ~ 1 + (1 | plate) + (1 | sample)",
    ),
    Dataset(
        name="machines",
        title="Productivity of workers on three machines",
        description="Productivity score of six workers, three times on each of three brands of machine.",
        rows=54,
        columns=_read_only(
            Worker=Column("worker, drawn at random from a factory"),
            Machine=Column("brand of the machine", levels=("A", "B", "C")),
            score=Column("score for number and quality of the components made", "point"),
        ),
        source=f"Milliken and Johnson (1992), Analysis of Messy Data I, Chapman and Hall; "
        f"{_PINHEIRO_BATES}.14. {_NLME}.",
        formula="score ~ Machine + (1 | Worker) + (1 | Worker:Machine)",
    ),
    Dataset(
        name="oxboys",
        title="Height of boys in Oxford",
        description="Height of 26 boys on nine occasions at slightly unequal ages.",
        rows=234,
        columns=_read_only(
            Subject=Column("boy"),
            age=Column("age, centred and scaled: about -1 to 1 over the study", "dimensionless"),
            height=Column("height", "cm"),
            Occasion=Column("number of the occasion", levels=tuple("123456789")),
        ),
        source=f"Goldstein (1987), Multilevel Models in Educational and Social Research; "
        f"{_PINHEIRO_BATES}.19. {_NLME}.",
        formula="height ~ age + (age | Subject)",
    ),
    Dataset(
        name="ovary",
        title="Ovarian follicles over the estrus cycle of mares",
        description="Daily number of ovarian follicles larger than 10 mm in 11 mares over one estrus cycle.",
        rows=308,
        columns=_read_only(
            Mare=Column("mare"),
            Time=Column("time in the cycle: 0 is one ovulation, 1 the next", "cycle"),
            follicles=Column("number of follicles larger than 10 mm in diameter", "count"),
        ),
        source=f"Pierson and Ginther (1987), Animal Reproduction Science 14, 219-231; "
        f"{_PINHEIRO_BATES}.18. {_NLME}.",
        formula="follicles ~ sin(2*pi*Time) + cos(2*pi*Time) + (1 | Mare)",
    ),
)
