"""LangChain's client of Ollama, through the tunnel, told nothing but what is in its environment."""

import unittest

from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM

MODEL = "stand-in"


class LangChain(unittest.TestCase):
    """OLLAMA_HOST, and OLLAMA_API_KEY unless the token is in OLLAMA_HOST."""

    def test_chat(self):
        self.assertIn("你好, 👋", ChatOllama(model=MODEL).invoke("Hello!").content)

    def test_chat_streams(self):
        pieces = list(ChatOllama(model=MODEL).stream("Hello!"))
        self.assertGreater(len(pieces), 20)
        self.assertIn("ein Gruß", "".join(piece.content for piece in pieces))

    def test_a_completion_streams(self):
        pieces = list(OllamaLLM(model=MODEL).stream("Hello!"))
        self.assertGreater(len(pieces), 20)
        self.assertIn("👋", "".join(pieces))

    def test_embeddings(self):
        self.assertEqual(len(OllamaEmbeddings(model=MODEL).embed_documents(["a", "b"])), 2)


class AsyncLangChain(unittest.IsolatedAsyncioTestCase):
    """The same with asyncio."""

    async def test_chat_streams(self):
        pieces = [piece async for piece in ChatOllama(model=MODEL).astream("Hello!")]
        self.assertGreater(len(pieces), 20)


if __name__ == "__main__":
    unittest.main()
