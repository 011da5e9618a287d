"""The Python client of Ollama, through the tunnel, told nothing but what is in its environment."""

import unittest

import ollama

MODEL = "stand-in"
MESSAGES = [{"role": "user", "content": "Hello!"}]


class Ollama(unittest.TestCase):
    """OLLAMA_HOST, and OLLAMA_API_KEY unless the token is in OLLAMA_HOST."""

    def test_chat(self):
        answer = ollama.chat(MODEL, MESSAGES)
        self.assertTrue(answer.done)
        self.assertIn("你好, 👋", answer.message.content)

    def test_chat_streams(self):
        pieces = list(ollama.chat(MODEL, MESSAGES, stream=True))
        self.assertTrue(pieces[-1].done)
        self.assertGreater(len(pieces), 20)
        self.assertIn("ein Gruß", "".join(piece.message.content for piece in pieces))

    def test_generate_streams(self):
        pieces = list(ollama.generate(MODEL, "Hello!", stream=True))
        self.assertTrue(pieces[-1].done)
        self.assertIn("👋", "".join(piece.response for piece in pieces))

    def test_list_show_embed(self):
        self.assertEqual([model.model for model in ollama.list().models], ["stand-in:latest"])
        self.assertEqual(ollama.show(MODEL).capabilities, ["completion"])
        self.assertEqual(len(ollama.embed(MODEL, ["a", "b"]).embeddings), 2)

    def test_an_error_of_ollama_arrives_as_it_is(self):
        with self.assertRaises(ollama.ResponseError) as caught:
            ollama.chat("no-such-model", MESSAGES)
        self.assertEqual(caught.exception.status_code, 404)
        self.assertEqual(caught.exception.error, "model 'no-such-model' not found")

    def test_a_caller_may_leave_in_the_middle(self):
        for _ in range(3):
            next(iter(ollama.chat(MODEL, MESSAGES, stream=True)))
        self.test_chat()


class AsyncOllama(unittest.IsolatedAsyncioTestCase):
    """The same with asyncio."""

    async def test_chat_streams(self):
        pieces = [piece async for piece in await ollama.AsyncClient().chat(MODEL, MESSAGES, stream=True)]
        self.assertTrue(pieces[-1].done)
        self.assertGreater(len(pieces), 20)

    async def test_generate_list_show_embed(self):
        client = ollama.AsyncClient()
        self.assertIn("👋", (await client.generate(MODEL, "Hello!")).response)
        self.assertEqual([model.model for model in (await client.list()).models], ["stand-in:latest"])
        self.assertEqual((await client.show(MODEL)).capabilities, ["completion"])
        self.assertEqual(len((await client.embed(MODEL, ["a", "b"])).embeddings), 2)

    async def test_an_error_of_ollama_arrives_as_it_is(self):
        with self.assertRaises(ollama.ResponseError) as caught:
            await ollama.AsyncClient().chat("no-such-model", MESSAGES)
        self.assertEqual(caught.exception.status_code, 404)

    async def test_a_caller_may_leave_in_the_middle(self):
        for _ in range(3):
            async for _piece in await ollama.AsyncClient().chat(MODEL, MESSAGES, stream=True):
                break
        await self.test_chat_streams()


if __name__ == "__main__":
    unittest.main()
