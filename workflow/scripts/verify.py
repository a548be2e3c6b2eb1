"""`make verify MODEL=name`: one known clip embedded and compared with what the registry records; no rule."""

import dataclasses
import os

import torch

from echo_embeddings.core import settings
from echo_embeddings.core.errors import UserError
from echo_embeddings.tools import command, models, verify

if __name__ == "__main__":
    parser = command.configured("Embed one known clip and compare its vector with the recorded one.")
    parser.add_argument("model", help="a name in the registry")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="by default a GPU where there is one")
    arguments = parser.parse_args()
    with command.exit_on_user_error():
        config = command.configuration(arguments)
        registry = settings.check(config, data=False)
        if arguments.model not in registry:
            raise UserError(f"no model {arguments.model!r} in the registry: {', '.join(registry)}")
        entry = registry[arguments.model]
        model = dataclasses.replace(settings.model(config, registry, arguments.model), precision="fp32")
        device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
        digest, vector = verify.vector(model, models.place(config, entry), config, device, os.cpu_count() or 1)
        print(verify.judge(model, digest, vector.tolist(), entry["known_vectors"]))
