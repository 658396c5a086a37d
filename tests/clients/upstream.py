"""A stand-in provider that speaks the OpenAI dialect. Equal requests get equal answers.

It repeats the last user text. Words in the text script faults: `fail-500` answers with that status (any status works),
`fail-500@small` does so only for the model `small`, `break` closes the stream halfway, `slow` waits before the first token.
`call` makes it call the first tool. `think` makes it think first, and refuse a history whose tool calls lack what it thought, as
DeepSeek does. The model `checker` says of every verification that the first cached answer fits. `GET /calls` returns how often each text was sent.
"""

import json
import re
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_SECONDS = 3
calls = Counter()
lock = threading.Lock()


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/calls":
            with lock:
                return self.reply(200, dict(calls))
        return self.reply(200, {"object": "list", "data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/embeddings":
            return self.embeddings(body)
        if self.path == "/v1/responses":
            return self.reply(200, response(body))
        text = last_user_text(body)
        with lock:
            calls[text] += 1
        for status, model in re.findall(r"fail-(\d{3})(?:@(\S+))?", text):
            if model in ("", body["model"]):
                return self.reply(int(status), {"error": {"message": f"scripted {status}", "type": "scripted"}})
        if "think" in text and any(turn.get("tool_calls") and not turn.get("reasoning_content") for turn in body["messages"]):
            return self.reply(400, {"error": {"message": "reasoning_content must be passed back", "type": "invalid_request_error"}})
        if "slow" in text:
            time.sleep(SLOW_SECONDS)
        if body.get("stream"):
            return self.stream(body, text)
        return self.reply(200, completion(body, text))

    def stream(self, body, text):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number, delta in enumerate(deltas(body, text)):
            self.event({"index": 0, "delta": delta, "finish_reason": None}, body)
            if "break" in text and number == 1:
                self.close_connection = True
                return
        self.event({"index": 0, "delta": {}, "finish_reason": finish_reason(body, text)}, body)
        self.event(None, body, usage(body, text))
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, choice, body, used=None):
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        chunk["choices"] = [choice] if choice else []
        if used:
            chunk["usage"] = used
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def embeddings(self, body):
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [{"object": "embedding", "index": n, "embedding": [float(len(str(t))), 1.0]} for n, t in enumerate(texts)]
        used = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        self.reply(200, {"object": "list", "model": body["model"], "data": data, "usage": used})

    def reply(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def last_user_text(body):
    turns = [turn for turn in body["messages"] if turn["role"] == "user"]
    content = turns[-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def calls_tool(body, text):
    return bool(body.get("tools")) and "call" in text and body["messages"][-1]["role"] != "tool"


def answer(body, text):
    if body["model"] == "checker":
        return "1"
    if (body.get("response_format") or {}).get("type") in ("json_object", "json_schema"):
        return '{"answer": 42}'
    if body["messages"][-1]["role"] == "tool":
        return f"the tool said {body['messages'][-1]['content']}"
    return f"you said: {text}"


def deltas(body, text):
    yield {"role": "assistant", "content": ""}
    if "think" in text:
        yield from ({"content": None, "reasoning_content": piece} for piece in ("let me ", "see"))
    if not calls_tool(body, text):
        yield from ({"content": word} for word in words(answer(body, text)))
        return
    function = {"name": body["tools"][0]["function"]["name"], "arguments": ""}
    yield {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}
    for piece in ('{"city":', '"Bonn"}'):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def words(text):
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


def finish_reason(body, text):
    return "tool_calls" if calls_tool(body, text) else "stop"


def usage(body, text):
    counts = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    if "think" in text:
        counts["prompt_tokens_details"] = {"cached_tokens": 8}
        counts["completion_tokens_details"] = {"reasoning_tokens": 3}
    return counts


def completion(body, text):
    choice = lambda n: {"index": n, "message": {"role": "assistant", "content": f"{answer(body, text)} #{n}"}, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice(n) for n in range(body.get("n", 1))],
        "usage": usage(body, text),
    }


def response(body):
    content = [{"type": "output_text", "text": "from the provider", "annotations": []}]
    message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}
    return {
        "id": "resp_provider",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Tests disconnect on purpose.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Provider)
    print(f"listening on {server.server_address[0]}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
