"""How the service's rows are written in JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from .models import Article, Code, Note, Profile, Project, Tag, Task


class ProjectSerializer(serializers.ModelSerializer):
    """Every field, the tenant too: what a hurried developer writes."""

    class Meta:
        model = Project
        fields = "__all__"


class TaskSerializer(serializers.ModelSerializer):
    class Meta:
        model = Task
        fields = "__all__"


class NoteSerializer(serializers.ModelSerializer):
    class Meta:
        model = Note
        fields = "__all__"


class TagSerializer(serializers.ModelSerializer):
    """With a field whose rows are looked up by name."""

    class Meta:
        model = Tag
        fields = "__all__"


class NestedProjectSerializer(serializers.ModelSerializer):
    """A project with the tasks that are made with it."""

    class NewTask(serializers.ModelSerializer):
        depends_on = serializers.SlugRelatedField(
            "name", queryset=Project.objects.all(), required=False, write_only=True
        )

        class Meta:
            model = Task
            fields = ["title", "depends_on"]

    tasks = NewTask(many=True, source="task_set")

    class Meta:
        model = Project
        fields = ["id", "name", "organization", "tasks"]

    def create(self, validated_data: dict[str, Any]) -> Project:
        tasks = validated_data.pop("task_set")
        project = Project.objects.create(**validated_data)
        for task in tasks:
            Task.objects.create(project=project, title=task["title"])
        return project


class ArticleSerializer(serializers.ModelSerializer):
    """Nothing of the organization: whose the row is, is nothing to say."""

    tag = serializers.SlugRelatedField(
        "name", queryset=Tag.objects.all(), required=False, allow_null=True
    )

    class Meta:
        model = Article
        fields = ["id", "code", "title", "shelf", "place", "price", "tag", "extra"]


class ProfileSerializer(serializers.ModelSerializer):
    class Meta:
        model = Profile
        fields = ["motto"]


class CodeSerializer(serializers.ModelSerializer):
    class Meta:
        model = Code
        fields = ["id"]
