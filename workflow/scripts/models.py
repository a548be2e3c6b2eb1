"""`make models`: the registry as a table; no rule."""

from echo_embeddings.core import settings
from echo_embeddings.tools import command, models

if __name__ == "__main__":
    parser = command.configured("Which models there are, whose checkpoint is missing, and their cost.")
    with command.exit_on_user_error():
        config = command.configuration(parser.parse_args())
        print(models.table(config, settings.check(config, data=False)))
