"""`make models`: the registry as a table; no rule."""

from echo_embeddings import command, models, settings

if __name__ == "__main__":
    parser = command.configured("Which models there are, whose checkpoint is missing, and their cost.")
    with command.told():
        config = command.configuration(parser.parse_args())
        print(models.table(config, settings.check(config, data=False)))
