"""`make doctor`: is everything there that a run needs, and what will it cost? No rule, and no lock."""

import sys

from echo_embeddings.tools import command, doctor

if __name__ == "__main__":
    arguments = command.configured("Is everything there that a run needs, and what will it cost?").parse_args()
    with command.exit_on_user_error():
        found = list(doctor.examine(command.configuration(arguments)))
    print(doctor.page(found, colour=sys.stdout.isatty()))
    sys.exit(any(isinstance(one, doctor.Finding) and one.level == doctor.RED for one in found))
