"""llm with its plugin for Ollama, through the tunnel, told nothing but what is in its environment."""

import unittest

import llm

MODEL = "ollama/stand-in"


class Llm(unittest.TestCase):
    """OLLAMA_HOST, and OLLAMA_API_KEY unless the token is in OLLAMA_HOST."""

    def test_models_are_found(self):
        self.assertTrue(any(model.model_id.startswith(MODEL) for model in llm.get_models()))

    def test_a_prompt(self):
        self.assertIn("你好, 👋", llm.get_model(MODEL).prompt("Hello!", stream=False).text())

    def test_a_prompt_streams(self):
        pieces = list(llm.get_model(MODEL).prompt("Hello!"))
        self.assertGreater(len(pieces), 20)
        self.assertIn("ein Gruß", "".join(pieces))


class AsyncLlm(unittest.IsolatedAsyncioTestCase):
    """The same with asyncio."""

    async def test_a_prompt_streams(self):
        pieces = [piece async for piece in llm.get_async_model(MODEL).prompt("Hello!")]
        self.assertGreater(len(pieces), 20)


if __name__ == "__main__":
    unittest.main()
