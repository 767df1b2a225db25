"""Reading what a job's prompt file asks for, and dividing a file that asks for several pictures."""

from __future__ import annotations

from collections.abc import Callable

from fluxdrop.config import FolderTable, Settings, table_of
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.bounds import check_bounds
from fluxdrop.generate.folder_defaults import with_defaults
from fluxdrop.generate.parameters import PromptParameters, random_seed
from fluxdrop.generate.prompt_file import MAX_PICTURES, PromptPicture, read_prompt, read_prompts
from fluxdrop.intake.writers import is_open_for_writing
from fluxdrop.jobs.claim import NewJob
from fluxdrop.jobs.job import Job, file_sha256
from fluxdrop.jobs.parts import divide
from fluxdrop.jobs.rewritten import is_written_by_others


class PromptReader:
    """Reads the prompt files of jobs. One thread owns it."""

    def __init__(self, settings: Settings, announce: Callable[[Job, list[NewJob]], None]) -> None:
        """Read by *settings*; *announce* is called with the job of a file that was divided, and with its new jobs."""
        self.settings = settings
        self._announce = announce
        self._parts: dict[str, list[NewJob]] = {}
        """New jobs that were not announced yet, by the id of the job whose file they come from."""

    def read(self, job: Job) -> PromptParameters:
        """Return what the prompt file of *job* asks for, and record in *job* what else it says.

        A file that asks for several pictures is divided into as many jobs first, each with its seed.

        Raises:
            FluxdropError: It cannot be read, or asks for something that cannot be done.
            OSError: The disk is full or not available; this may be called again.
        """
        text = read_prompt(job.input, self.settings.max_prompt_bytes, job.name)
        job.sha256 = file_sha256(job.input, self.settings.max_prompt_bytes, job.name)
        job.prompt = text.strip()
        part = job.options.part
        replayed = job.options.generation
        is_whole_file = part is None and replayed is None
        max_pictures = self.settings.max_pictures_per_prompt if is_whole_file else MAX_PICTURES
        table = table_of(self.settings.folders, job.inbox_folder)
        prompts = [
            self._completed(prompt, table)
            for prompt in read_prompts(text, max_pictures, self.settings.max_steps, table.seed)
        ]
        for wanted in [replayed] if replayed else [prompt.parameters for prompt in prompts]:
            check_bounds(wanted, self.settings)
        if is_whole_file and len(prompts) > 1:
            pictures = [prompt.parameters.with_seed(random_seed()) for prompt in prompts]
            self._parts[job.id] = divide(job, pictures, self.settings.max_prompt_bytes)
            part = job.options.part
        self.announce_parts(job)
        if part is not None and part.number > len(prompts):
            raise FluxdropError(
                f"The file asks for {len(prompts)} pictures, so it has no picture {part.number}",
                kind="prompt",
            )
        prompt = prompts[part.number - 1 if part is not None else 0]
        job.warnings = list(prompt.warnings)
        if is_written_by_others(job) and is_open_for_writing(job.input):
            job.warnings.append("A program still had the file open for writing when it was read.")
        parameters = job.options.generation or prompt.parameters
        if part is not None:
            job.prompt = parameters.prompt
        return parameters

    def announce_parts(self, job: Job) -> None:
        """Announce the new jobs of the file of *job* that are not announced yet, if there are any."""
        if job.id in self._parts:
            self._announce(job, self._parts[job.id])
            del self._parts[job.id]

    def _completed(self, prompt: PromptPicture, table: FolderTable) -> PromptPicture:
        """Return *prompt* with what the table of its folder gives."""
        parameters, warnings = with_defaults(prompt.parameters, table, self.settings)
        return PromptPicture(parameters, [*prompt.warnings, *warnings])
