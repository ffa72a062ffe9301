"""Speaks to `esolm serve` with the unmodified client of OpenAI: client.py ESOLM MODEL."""

import asyncio
import signal
import subprocess
import sys
import time

import openai

esolm, model_file = sys.argv[1:]
MESSAGES = [{"role": "system", "content": "You tell stories."}, {"role": "user", "content": "Hello"}]


def start(*more):
    command = [esolm, "serve", "-m", model_file, "--port", "0", "--template", "chatml", "--api-key", "secret", *more]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = server.stderr.readline().split(" at ")[1].strip()
    return server, address


def client_of(address, **more):
    return openai.OpenAI(base_url=address, api_key="secret", max_retries=0, **more)


def one_client(client, name):
    assert [model.id for model in client.models.list()] == [name]
    assert client.models.retrieve(name).id == name

    how = dict(model=name, prompt="Once upon a time", max_tokens=20, temperature=0, seed=1)
    whole = client.completions.create(**how)
    assert whole.usage.completion_tokens == 20 and whole.choices[0].finish_reason == "length", whole
    chunks = list(client.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == 20 and not chunks[-1].choices
    scored = client.completions.create(**how, logprobs=2)
    assert len(scored.choices[0].logprobs.token_logprobs) == 20
    assert "".join(scored.choices[0].logprobs.tokens) == whole.choices[0].text
    several = client.completions.create(**{**how, "prompt": ["Once", "The king"]}, n=2, stop=["."])
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]

    how = dict(model=name, messages=MESSAGES, max_tokens=16, temperature=0.8, top_p=0.9, seed=7)
    whole = client.chat.completions.create(**how)
    assert whole.choices[0].message.role == "assistant" and whole.choices[0].message.content, whole
    text = ""
    for chunk in client.chat.completions.create(**how, stream=True):
        text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content, (text, whole)
    scored = client.chat.completions.create(**how, logprobs=True, top_logprobs=3)
    assert all(len(token.top_logprobs) == 3 for token in scored.choices[0].logprobs.content)
    two = client.chat.completions.create(**how, n=2, user="ignored", metadata={"also": "ignored"})
    assert len(two.choices) == 2 and two.choices[0].message.content == whole.choices[0].message.content

    for error, wrong in [
        (openai.BadRequestError, dict(how, temperature=-1)),
        (openai.BadRequestError, dict(how, messages=[])),
        (openai.BadRequestError, dict(how, tools=[{"type": "function", "function": {"name": "f"}}])),
        (openai.BadRequestError, dict(how, messages=[{"role": "user", "content": "word " * 2000}])),
        (openai.NotFoundError, dict(how, model="gpt-4")),
    ]:
        try:
            client.chat.completions.create(**wrong)
        except error as refused:
            assert refused.body["message"], refused
        else:
            raise AssertionError(f"{wrong} was not refused")
    try:
        openai.OpenAI(base_url=client.base_url, api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError:
        pass
    else:
        raise AssertionError("a wrong key was taken")


async def many_clients(address, name):
    """1 to 16 at once, half of them streaming: each gets the text that it gets alone."""
    clients = [openai.AsyncOpenAI(base_url=address, api_key="secret", max_retries=0) for _ in range(16)]

    async def text(client, seed):
        how = dict(model=name, messages=MESSAGES, max_tokens=24, seed=seed)
        if seed % 2:
            pieces = await client.chat.completions.create(**how, stream=True)
            return "".join([piece.choices[0].delta.content or "" async for piece in pieces])
        return (await client.chat.completions.create(**how)).choices[0].message.content

    alone = [await text(clients[0], seed) for seed in range(16)]
    for count in range(1, 17):
        together = await asyncio.gather(*(text(clients[seed], seed) for seed in range(count)))
        assert together == alone[:count], count
    # One that breaks off in the middle.
    pieces = await clients[0].chat.completions.create(model=name, messages=MESSAGES, max_tokens=200, stream=True)
    async for _ in pieces:
        break
    await pieces.close()
    for client in clients:
        await client.close()


def main():
    started = time.time()
    server, address = start("--parallel", "8")
    with client_of(address) as client:
        name = client.models.list().data[0].id
        one_client(client, name)
        asyncio.run(many_clients(address, name))
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0, server.stderr.read()
    print(f"openai {openai.__version__}: all as it should be, in {time.time() - started:.0f} s")


main()
