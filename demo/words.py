"""What the page says, in English and Chinese.

say = words("zh-CN,zh;q=0.9")      # by what a browser accepts
say["send"]
"""

from __future__ import annotations

ENGLISH = {
    "lead": "One small model that reads and writes words, pictures and clips, in any order.",
    "talk": "Conversation",
    "start": "Begin with one of these, or write your own below.",
    "message": "Your message",
    "hint": "What shall I draw, film or look at?",
    "you": "You",
    "model": "Model",
    "waiting": "Thinking",
    "picture": "Picture",
    "clip": "Clip",
    "before": "Before",
    "after": "After",
    "frames": "frames",
    "seed": "seed",
    "step": "step {} of {}",
    "download": "Download",
    "edit": "Edit this",
    "again": "Try again",
    "undo": "Take back",
    "change": "Change message",
    "strip": "All frames",
    "about": "Your next message is about this:",
    "drop": "Never mind",
    "stopped": "Stopped.",
    "full": "The conversation holds as many pictures and clips as it can; clear it to begin anew.",
    "settings": "Settings",
    "want": "Kind of reply",
    "want_any": "as the model likes",
    "want_text": "words",
    "want_image": "picture",
    "want_video": "clip",
    "length": "Frames of a clip",
    "length_info": "0: as many as the clip before it has; a new one has its usual length.",
    "steps": "Steps",
    "steps_info": "More are slower and finer.",
    "guidance": "Guidance",
    "guidance_info": "How closely to follow the words; 1 is not at all closer.",
    "seed_label": "Seed",
    "seed_info": "The same seed and words give the same picture.",
    "fresh": "A new seed for each reply",
    "save": "Save",
    "load": "Open",
    "clear": "Clear",
    "knows": "What this model knows",
    "note": (
        "The model is very small. Its whole world are one to four coloured solids (cubes, balls, cones and cylinders; "
        "red, orange, yellow, green, cyan, blue, purple or pink; small or large) in a gray room, under a blue sky, at "
        "night or in a green field. In a clip each of them may stand still, slide to the left or right, come closer or "
        "go away, fly, bounce, spin, grow, shrink, appear, vanish, circle or hit another; so far it draws one solid "
        "best. It has never seen a photo and will make of one what it can: "
        "solids. It reads and writes English."
    ),
    "limits": (
        "An upload may have {mb} MB, a clip {seconds} seconds, a conversation {media} pictures and clips. What you "
        "send is cut to the square that the model sees. Your files are deleted when you leave, or after an hour."
    ),
}

CHINESE = {
    "lead": "一个小模型，以任意顺序读写文字、图片和视频。",
    "talk": "对话",
    "start": "从下面的例子开始，或者自己写。",
    "message": "你的消息",
    "hint": "要画什么、拍什么、看什么？（请用英文）",
    "you": "你",
    "model": "模型",
    "waiting": "思考中",
    "picture": "图片",
    "clip": "视频",
    "before": "之前",
    "after": "之后",
    "frames": "帧",
    "seed": "种子",
    "step": "第 {} 步，共 {} 步",
    "download": "下载",
    "edit": "编辑它",
    "again": "重试",
    "undo": "撤回",
    "change": "修改消息",
    "strip": "全部帧",
    "about": "下一条消息针对：",
    "drop": "取消",
    "stopped": "已停止。",
    "full": "这个对话里的图片和视频已满，清空后可以重新开始。",
    "settings": "设置",
    "want": "回复类型",
    "want_any": "由模型决定",
    "want_text": "文字",
    "want_image": "图片",
    "want_video": "视频",
    "length": "视频帧数",
    "length_info": "0：与之前的视频相同；新视频用通常的长度。",
    "steps": "步数",
    "steps_info": "越多越慢，也越精细。",
    "guidance": "引导强度",
    "guidance_info": "多大程度上遵循文字；1 为不加强。",
    "seed_label": "种子",
    "seed_info": "相同的种子和文字得到相同的图片。",
    "fresh": "每次回复用新种子",
    "save": "保存",
    "load": "打开",
    "clear": "清空",
    "knows": "这个模型知道什么",
    "note": (
        "这个模型很小。它的世界里只有一到四个彩色立体：立方体、球、圆锥和圆柱；红、橙、黄、绿、青、蓝、紫或粉色；"
        "大或小；在灰色房间里、蓝天下、夜里或绿地上。在视频里，它们可以静止、向左或向右滑动、靠近、远离、飞起、弹跳、"
        "旋转、变大、变小、出现、消失、绕着或撞上另一个；目前它画单个立体最好。它从没见过照片，会把照片也当成立体来理解。它只读写英文。"
    ),
    "limits": (
        "每个上传文件最多 {mb} MB，视频最长 {seconds} 秒，每个对话最多 {media} 个图片和视频。"
        "上传的内容会被裁成模型所看到的正方形。文件在你离开时或一小时后删除。"
    ),
}

LANGUAGES = {"en": ENGLISH, "zh": CHINESE, "zh-CN": CHINESE}


def language(accepted: str) -> str:
    """ "zh" or "en", by the value of an Accept-Language header."""
    return "zh" if accepted.strip().lower().startswith("zh") else "en"
