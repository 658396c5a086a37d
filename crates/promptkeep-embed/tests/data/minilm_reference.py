"""Writes the reference data of the embedding's tests: minilm_reference.json (texts and their token ids) and
minilm_reference.i16 (vectors, row by row, little-endian, 32767 is 1.0).

    python3 -m venv venv && venv/bin/pip install torch transformers
    data=crates/promptkeep-embed/tests/data
    venv/bin/python $data/minilm_reference.py FOLDER_OF_THE_MODEL $data

FOLDER_OF_THE_MODEL is the folder that `promptkeep model path` prints. Add config.json and tokenizer.json of
huggingface.co/sentence-transformers/all-MiniLM-L6-v2 to it. Last run with torch 2.15.0 and transformers 5.24.0.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModel

PARAGRAPH = (
    "Our order arrived on Tuesday with two of the five chairs missing, and the courier's tracking page "
    "still says that everything was delivered in one piece. I have already filled in the contact form "
    "twice without an answer. Could you tell me whether the remaining parcels are on their way, and if "
    "not, how I can get a refund for them without sending the other three back? "
)

# Texts with a reference vector: short and long, prose and code, and languages that the model knows badly.
TEXTS = [
    "hi",
    "?",
    "What is the capital of France?",
    "what's the capital of france",
    "How do I reset my password?",
    "How can I change my password if I forgot the old one?",
    "Cancel my subscription, please.",
    "Do NOT cancel my subscription!",
    "Convert 12 km to miles",
    "Convert 12 miles to km",
    "Flights from Berlin to Oslo on 3 March 2025",
    "Flights from Oslo to Berlin on 3 March 2025",
    "Classify the sentiment of this review: 'The battery died after two days.'",
    "Translate to German: The meeting was moved to Thursday at 14:30.",
    "Summarise the following e-mail in one sentence, for a manager who has no time.",
    "Write a haiku about a cache miss.",
    "SELECT name, COUNT(*) FROM orders WHERE created_at >= '2024-01-01' GROUP BY name HAVING COUNT(*) > 3;",
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)",
    "fn main() { let v: Vec<u32> = (0..10).filter(|x| x % 2 == 0).collect(); println!(\"{v:?}\"); }",
    "Why does `await` inside a `for` loop run sequentially in JavaScript?",
    "TypeError: Cannot read properties of undefined (reading 'map') at App.jsx:42:17",
    "git rebase -i HEAD~3 && git push --force-with-lease origin feature/x",
    "{\"user\": {\"id\": 17, \"tags\": [\"a\", \"b\"], \"active\": true}}",
    "https://example.com/path?query=1&other=two#fragment",
    "3.14159 2.71828 1.41421 0.57721 1e-9 -273.15 1,000,000",
    "What is 17 * 23 + 4?",
    "$1,299.00 vs. €1.199,00 — which is cheaper at 1 EUR = 1.08 USD?",
    "I'm feeling great today 😀🎉 how about you?",
    "👩‍💻🚀🔥",
    "Café, naïve, façade, Ångström, smörgåsbord, jalapeño",
    "Wie setze ich mein Passwort zurück?",
    "¿Cómo puedo restablecer mi contraseña?",
    "Comment puis-je réinitialiser mon mot de passe ?",
    "Как мне сбросить пароль?",
    "パスワードをリセットするにはどうすればいいですか？",
    "如何重置我的密码？",
    "비밀번호를 어떻게 재설정하나요?",
    "كيف يمكنني إعادة تعيين كلمة المرور؟",
    "मैं अपना पासवर्ड कैसे रीसेट करूँ?",
    "Πώς μπορώ να επαναφέρω τον κωδικό μου;",
    "איך אני מאפס את הסיסמה שלי?",
    "ฉันจะรีเซ็ตรหัสผ่านได้อย่างไร",
    "Làm thế nào để đặt lại mật khẩu của tôi?",
    "pneumonoultramicroscopicsilicovolcanoconiosis and antidisestablishmentarianism",
    "!!! ??? ... --- ((())) [[]] {} <> \\ / | ~ ` ^",
    "aaaa bbbb cccc dddd eeee ffff gggg hhhh",
    "the the the the the the the the the the the the the the the the",
    PARAGRAPH.strip(),
    (PARAGRAPH * 3).strip(),
    ("def handler(event, context):\n    return {'statusCode': 200, 'body': str(event)}\n" * 8).strip(),
    "word " * 254,
]

# Texts that are hard to tokenize. They have token ids only.
HARD = [
    "",
    "   ",
    "\t\n\r",
    "a\u0000b\u0001c\u007fd",
    "a\u200bb\u200cc\u200dd\ufeffe",
    "soft\u00adhyphen",
    "non\u00a0breaking\u2003em\u3000ideographic\u2028line\u2029paragraph\u0085next",
    "vertical\u000btab form\u000cfeed",
    "replacement \ufffd char",
    "private \ue000 use",
    "İstanbul IŞIK ığdır Straße GROẞE",
    "ÀÉÎÕÜ àéîõü ÇçÑñ Øø Đđ Łł Ææ Œœ ß þ ð",
    "e\u0301 o\u0308 n\u0303 a\u030a\u0323 combining",
    "ﬁ ﬂ ﬀ ligatures ½ ² ① Ⅷ ℃ №",
    "ｆｕｌｌｗｉｄｔｈ ＡＢＣ １２３",
    "漢字仮名交じり文とABCの混在",
    "中文和English混合，标点。也算！",
    "\u3400\u4dbf\uf900\ufa0e\U00020000\U0002a6df\U0002f800",
    "한국어와 日本語 and ไทย",
    "হ্যালো বিশ্ব வணக்கம் నమస్కారం ಕನ್ನಡ",
    "שָׁלוֹם עֲלֵיכֶם",
    "اَلْعَرَبِيَّةُ",
    "Ἀθῆναι ΣΊΣΥΦΟΣ",
    "Ӏ Ёлка Йод Українська ґанок",
    "«quoted» “curly” ‘single’ „low“ ‚x‘ ‹y›",
    "em—dash en–dash hyphen‐minus − minus",
    "a+b=c a-b a*b a/b a%b a^b a~b a|b a&b a<b a>b",
    "user@example.com #hashtag @mention $PATH ${HOME} `code`",
    "snake_case camelCase PascalCase kebab-case SCREAMING_SNAKE",
    "don't can't won't it's I'd you're rock'n'roll",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "y" * 5000 + " end",
    "é" * 60 + " " + "é" * 101,
    "##ing ## #",
    "unaffable unbelievable embeddings tokenization",
    "zzzzqqqq xqjz",
    "1234567890 12,345.67 0xDEADBEEF 1e10 ½",
    "🇩🇪 👍🏽 👨‍👩‍👧‍👦 ❤️ ☃ ★ → ∞ ≠ ∑ √ π",
    "♠♣♥♦ © ® ™ § ¶ † ‡ • … ‰",
    "\u0f0b\u0f0dབོད་ཡིག ᠮᠣᠩᠭᠣᠯ አማርኛ ქართული Հայերեն",
    "line one\nline two\r\nline three\ttabbed",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝐦𝐚𝐭𝐡 𝒔𝒄𝒓𝒊𝒑𝒕",
    "a\u0301\u0327 c\u0327\u0301",
    "word " * 300,
]


def main() -> None:
    model_folder, out = sys.argv[1], Path(sys.argv[2])
    tokenizer = Tokenizer.from_file(f"{model_folder}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = AutoModel.from_pretrained(model_folder, attn_implementation="eager").eval()

    def vector(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return torch.nn.functional.normalize(states.mean(0), dim=0)

    ids = {text: tokenizer.encode(text).ids for text in TEXTS + HARD}
    assert all(len(ids[text]) <= 256 for text in TEXTS)
    vectors = torch.stack([vector(ids[text]) for text in TEXTS])
    fixed_point = (vectors * 32767).round().to(torch.int16).numpy().astype("<i2")
    (out / "minilm_reference.i16").write_bytes(fixed_point.tobytes())
    with open(out / "minilm_reference.json", "w", encoding="utf-8") as file:
        rows = [json.dumps({"text": text, "ids": ids[text]}, ensure_ascii=True) for text in TEXTS + HARD]
        file.write("[\n" + ",\n".join(rows) + "\n]\n")
    print(len(TEXTS), "vectors,", len(TEXTS) + len(HARD), "token lists, lengths", [len(ids[t]) for t in TEXTS])


if __name__ == "__main__":
    main()
