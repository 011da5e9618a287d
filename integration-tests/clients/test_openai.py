"""The Python SDK of OpenAI, through the tunnel, told nothing but what is in its environment."""

import os
import unittest

import openai

MODEL = "stand-in"
MESSAGES = [{"role": "user", "content": "Hello!"}]


class OpenAI(unittest.TestCase):
    """OPENAI_BASE_URL and OPENAI_API_KEY; the SDK insists on a key even where the token is in the URL."""

    def setUp(self):
        self.client = openai.OpenAI()
        self.addCleanup(self.client.close)

    def test_chat(self):
        answer = self.client.chat.completions.create(model=MODEL, messages=MESSAGES)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertIn("你好, 👋", answer.choices[0].message.content)

    def test_chat_streams(self):
        chunks = list(self.client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")
        self.assertGreater(len(chunks), 20)
        self.assertIn("ein Gruß", "".join(chunk.choices[0].delta.content or "" for chunk in chunks))

    def test_models_and_embeddings(self):
        self.assertEqual([model.id for model in self.client.models.list()], [MODEL])
        embeddings = self.client.embeddings.create(model=MODEL, input="a", encoding_format="float")
        self.assertEqual(len(embeddings.data[0].embedding), 3)

    def test_a_slash_in_a_model_name_survives(self):
        self.assertEqual(self.client.models.retrieve("owner/model").id, "owner/model")

    def test_an_error_of_the_model_server_arrives_as_it_is(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="no-such-model", messages=MESSAGES)
        self.assertIn("model 'no-such-model' not found", str(caught.exception))

    def test_a_wrong_token_is_told_apart(self):
        base_url, in_the_path, _ = os.environ["OPENAI_BASE_URL"].partition("/t/")
        if in_the_path:
            error, wrong = openai.PermissionDeniedError, {"base_url": f"{base_url}/t/wrong/v1"}
        else:
            error, wrong = openai.AuthenticationError, {"api_key": "wrong"}
        with self.assertRaises(error) as caught:
            self.client.with_options(**wrong).chat.completions.create(model=MODEL, messages=MESSAGES)
        self.assertEqual(caught.exception.type, "tunnel_error")
        self.assertEqual(caught.exception.code, "token_invalid")

    def test_a_caller_may_leave_in_the_middle(self):
        for _ in range(3):
            with self.client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
                next(iter(stream))
        self.test_chat()


if __name__ == "__main__":
    unittest.main()
